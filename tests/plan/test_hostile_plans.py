# SPDX-License-Identifier: Apache-2.0
"""Plans that someone has changed and sealed again: they run, or are refused in our own words."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx import _core
from scn_fx.errors import PlanError, ScnError
from tests.fuzz.seeds import CORPUS
from tests.plan.plan_bytes import sealed

NAMES = (
    "strided-int8", "residual-int8", "residual-fp16", "inverse-int8", "bev-int8", "quant-add", "strided-fp16",
    "int8-outputs",
)  # fmt: skip
PLANS = [_core.plan_bytes((CORPUS / "onnx" / f"{name}.onnx").read_bytes()) for name in NAMES]
EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x7F800000,
    0x7FC00000,
)


def _accepts_or_refuses(plan: bytes) -> bool:
    """Loads a plan and runs a frame, on the CPU; plans it for a GPU. Whatever is refused is refused by us."""
    for backend in ("cpu", "cuda"):
        try:
            _core.plan_onnx(plan, backend)
        except ScnError as error:
            assert len(str(error)) > 20
    try:
        engine = _core.Engine(plan, threads=1, memory_limit=1 << 28)
        channels = engine.describe()["input_channels"]
        sites = np.array([[0, z, y, x] for z in range(4) for y in range(5) for x in range(5)], np.int32)
        features = np.linspace(-2, 2, len(sites) * channels, dtype=np.float32).reshape(len(sites), channels)
        engine.run(features, sites)
    except ScnError as error:
        assert len(str(error)) > 20
        return False
    return True


def test_the_plans_run_as_they_are() -> None:
    assert all(map(_accepts_or_refuses, PLANS))


@given(st.data())
def test_changed_bytes_behind_a_right_checksum(data: st.DataObject) -> None:
    plan = bytearray(data.draw(st.sampled_from(PLANS)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(20, len(plan) - 16))
        kind = data.draw(st.sampled_from(("byte", "word", "cut", "repeat")))
        if kind == "byte":
            plan[at] = data.draw(st.integers(0, 255))
        elif kind == "word":
            struct.pack_into("<I", plan, at, data.draw(st.sampled_from(EDGES)))
        elif kind == "cut":
            del plan[at : at + data.draw(st.integers(1, 8))]
        else:
            plan[at:at] = plan[at : at + data.draw(st.integers(1, 8))]
    _accepts_or_refuses(sealed(bytes(plan)))


def test_every_word_at_its_edges() -> None:
    """All that the description and the nodes say, in one plan, one after another."""
    plan = PLANS[NAMES.index("residual-int8")]
    for at in range(20, len(plan) - 12, 3):
        changed = bytearray(plan)
        struct.pack_into("<I", changed, at, EDGES[at % len(EDGES)])
        _accepts_or_refuses(sealed(bytes(changed)))


@pytest.mark.parametrize("bits", [0x7F800000, 0x7FC00000, 0xFF800000])
def test_weights_that_are_not_finite(bits: int) -> None:
    plan = bytearray(PLANS[NAMES.index("strided-fp16")])
    struct.pack_into("<I", plan, len(plan) - 12, bits)  # the last bias
    with pytest.raises(PlanError, match="weights that are not finite"):
        _core.Engine(sealed(bytes(plan)))


@pytest.mark.parametrize("group", [0, 2, 3, 8, 16, 0x80, 0x84, 0xFF])
def test_groupings_of_sums_that_kernels_do_not_have(group: int) -> None:
    """Four input channels are one quad, so that 1 is the only one; shifts there are none."""
    plan = bytearray(PLANS[NAMES.index("strided-int8")])
    at = len(plan) - 8 - 4 * 4 - 1 - 1  # before the checksum, four biases, and that there are no shifts
    assert plan[at] == 1 and _accepts_or_refuses(sealed(bytes(plan)))
    plan[at] = group
    with pytest.raises(PlanError, match="a grouping of sums that kernels do not have"):
        _core.Engine(sealed(bytes(plan)))


def test_nodes_that_an_onnx_file_could_not_have() -> None:
    plan = PLANS[0].replace(b"SparseConvolution", b"SparseConvolutiom")
    with pytest.raises(PlanError, match=r"damaged, or was not written by this library\. SparseConvolutiom '"):
        _core.Engine(sealed(plan))


def test_bytes_behind_the_end() -> None:
    with pytest.raises(PlanError, match="bytes behind its end"):
        _core.Engine(sealed(PLANS[0][:-8] + b"more" + PLANS[0][-8:]))
