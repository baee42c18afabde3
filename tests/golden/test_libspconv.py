# SPDX-License-Identifier: Apache-2.0
"""The engine and the oracle against what NVIDIA's libspconv computed on a real frame.

libspconv's results are only there when SCN_FX_DATA names the data folder; without it this file checks the
writer of its graphs alone, and tests/core/test_engine_oracle.py runs such a network on a synthetic frame.

Limits: int8 networks of 21 layers amplify single differing roundings, so two implementations agree with each
other less than perfectly; what counts is that both are equally near to float32.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx import _core
from tests.oracle.centerpoint import centerpoint_onnx
from tests.oracle.compare import assert_same_bits, cosine
from tests.oracle.dialect import read_network
from tests.oracle.frames import data_folder, load_frame, synthetic_frame
from tests.oracle.golden import golden_dense, golden_onnx
from tests.oracle.network import run_network

DATA = data_folder()


def test_the_writer_makes_the_dialect() -> None:
    network = read_network(centerpoint_onnx(synthetic_frame(count=300)))
    kinds = [node.op_type for node in network.nodes]
    assert kinds.count("SparseConvolution") == 21 and kinds.count("Add") == 8 and len(kinds) == 39
    assert network.nodes[0].precision == "fp16" and network.nodes[1].precision == "int8"


if DATA is not None:

    @cache
    def engine_dense(graph: str, precision: str = "") -> npt.NDArray[np.generic]:
        frame = load_frame("nuscenes")
        (dense,) = _core.Engine(golden_onnx(DATA, graph), precision=precision).run(
            frame.features, frame.indices
        )
        return dense

    @cache
    def oracle_dense(graph: str) -> npt.NDArray[np.generic]:
        frame = load_frame("nuscenes")
        return run_network(golden_onnx(DATA, graph), frame.features, frame.indices).dense

    def test_fp16_agrees_with_libspconv() -> None:
        assert cosine(engine_dense("fp16"), golden_dense(DATA, "fp16")) >= 0.99999

    def test_int8_agrees_with_libspconv() -> None:
        assert cosine(engine_dense("int8"), golden_dense(DATA, "int8")) >= 0.978

    def test_int8_is_as_near_to_float32_as_libspconv() -> None:
        reference = engine_dense("fp16", "fp32")
        ours, theirs = (cosine(d, reference) for d in (engine_dense("int8"), golden_dense(DATA, "int8")))
        assert ours >= 0.981 and ours >= theirs - 0.0005

    @pytest.mark.parametrize("threads", [1, 2])
    def test_int8_has_the_bits_of_the_oracle(threads: int) -> None:
        frame = load_frame("nuscenes")
        engine = _core.Engine(golden_onnx(DATA, "int8"), threads=threads)
        for run in range(2):
            (dense,) = engine.run(frame.features, frame.indices)
            assert_same_bits(dense, oracle_dense("int8"), f"run {run}")

    def test_fp16_is_near_the_oracle() -> None:
        """Float32 sums against float64 ones: the difference is far below float16's own rounding."""
        assert cosine(engine_dense("fp16"), oracle_dense("fp16")) >= 0.999999
