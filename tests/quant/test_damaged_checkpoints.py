# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are damaged or made to do damage: a CalibrationError, and never other weights."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import quant
from scn_fx.errors import CalibrationError
from scn_fx.quant.checkpoint_files import read_checkpoint, state_dicts
from scn_fx.quant.unpickling import load_inert
from scn_fx.quant.weights import load_weights
from tests.quant.graphs import residual


def saved(content: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


def anew(data: bytes, change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint with other members, whose CRCs are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return out.getvalue()


def refused(path: Path, data: bytes, words: str = "cannot be read as weights") -> None:
    path.write_bytes(data)
    with pytest.raises(CalibrationError, match=words):
        read_checkpoint(path)


def test_every_flipped_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    weights = {"a": torch.arange(10.0), "b": torch.ones(3).half()}
    data, path = saved(weights), tmp_path / "c.pth"
    values = data.index(weights["a"].numpy().tobytes())
    refused(path, data[: values + 3] + b"\x40" + data[values + 4 :], "data/0.* cannot be read .*CRC")
    directory = data.index(b"PK\1\2")
    for bit in (*range(0, 8 * directory, 61), *range(8 * directory, 8 * len(data), 7)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except CalibrationError:
            continue
        assert found.keys() == weights.keys() and all(
            torch.equal(found[key], weights[key]) for key in weights
        )
    for length in range(0, len(data), 7):
        refused(path, data[:length])
    refused(path, data + b"more", "does not end with a directory")


def test_checkpoints_without_checksums_are_read(tmp_path: Path) -> None:
    """torch.serialization.set_crc32_options(False) leaves them all out."""
    from torch.serialization import get_crc32_options, set_crc32_options

    before = get_crc32_options()
    set_crc32_options(False)
    try:
        data = saved({"a": torch.arange(5.0)})
    finally:
        set_crc32_options(before)
    (tmp_path / "c.pth").write_bytes(data)
    assert read_checkpoint(tmp_path / "c.pth")["a"].tolist() == [0, 1, 2, 3, 4]


def test_a_tensor_that_is_marked_as_a_folder(tmp_path: Path) -> None:
    """One bit in the directory; torch 2.13 then returns memory that nobody has written."""
    data = bytearray(saved({"a": torch.arange(10.0)}))
    entry = data.index(b"archive/data/0", data.index(b"PK\1\2")) - 46
    data[entry + 38] |= 0x10
    refused(tmp_path / "c.pth", bytes(data), "'archive/data/0' is marked as a folder")


def test_archives_that_torch_does_not_write(tmp_path: Path) -> None:
    data, path = saved({"a": torch.zeros(1000)}), tmp_path / "c.pth"
    refused(
        path, anew(data, lambda members: None, zipfile.ZIP_DEFLATED), "is packed; expected a plain archive"
    )
    end64 = data.rindex(b"PK\6\6")
    for at, form, value in ((40, "<Q", 2**40), (48, "<Q", 2**63), (32, "<Q", 2**62)):
        made = bytearray(data)
        struct.pack_into(form, made, end64 + at, value)
        refused(path, bytes(made), "the end of its zip directory is damaged")
    for change in (lambda m: m.pop("archive/data/0"), lambda m: m.update({"archive/data/0": b"short"})):
        refused(path, anew(data, change))


@pytest.mark.parametrize("zipped", [True, False])
def test_views_of_more_than_their_storage(tmp_path: Path, zipped: bool) -> None:
    """Sizes in the pickle that the values do not have: not memory of somebody else, not zeros."""
    data = saved({"a": torch.arange(11.0)}, _use_new_zipfile_serialization=zipped)
    size = b"K\x00K\x0b\x85"  # offset 0, size (11,)
    other = b"K\x00J" + struct.pack("<i", 40_000_000) + b"\x85"

    def change(members: dict[str, bytes]) -> None:
        key = "archive/data.pkl"
        assert size in members[key]
        members[key] = members[key].replace(size, other)

    assert zipped or size in data
    refused(tmp_path / "c.pth", anew(data, change) if zipped else data.replace(size, other))


def test_a_view_of_one_value_with_a_million_million_elements(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    model = torch.nn.Linear(2, 3)
    state = {"weight": torch.ones(1).expand(10**6, 10**6), "bias": torch.ones(3)}
    torch.save(state, path)
    with pytest.raises(CalibrationError, match=r"weight must be \[3, 2\], got \[1000000, 1000000\]"):
        load_weights(model, path)
    ranges = {f"{name}._{kind}_quantizer._amax": torch.ones(1).half().expand(10**6, 10**6)
              for name in ("conv1.0.conv1", "conv1.0.conv2", "extra_conv.0") for kind in ("input",
              "weight")}  # fmt: skip
    torch.save({**ranges, "conv1.0.quant_add._input_quantizer._amax": 10**40}, path)
    graph = residual()
    with pytest.raises(CalibrationError, match=r"one range|no tensor"):
        quant.load_pytorch_quantization(graph, path, precision={"*": "int8", "conv_input.*": "fp16"})


def test_a_number_in_a_pickle_does_not_size_a_table(tmp_path: Path) -> None:
    """The C unpickler makes a table as long as the largest memo number, here 2^31 - 1: 16 GB."""
    program = b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b"(X\x04\x00\x00\x00datecdatetime\ndatetime\nu."
    data = anew(saved({}), lambda members: members.update({"archive/data.pkl": program}))
    path = tmp_path / "c.pth"
    path.write_bytes(data)
    found: Any = read_checkpoint(path)
    assert list(found) == ["date"]
    assert load_inert(str(path)).keys() == found.keys()


class Module(torch.nn.Module):
    """Pickled as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)


def test_modules_inside_themselves(tmp_path: Path) -> None:
    module, deep = Module(), Module()
    module._modules["again"] = module
    torch.save({"net": module}, tmp_path / "c.pth")
    found = state_dicts(read_checkpoint(tmp_path / "c.pth"))["net",]
    assert {"layer.weight", "layer.bias"} <= set(found)
    for _ in range(150):
        outer = Module()
        outer._modules["inner"] = deep
        deep = outer
    torch.save({"net": deep}, tmp_path / "c.pth")
    with pytest.raises(CalibrationError, match="modules in more than 100 levels"):
        state_dicts(read_checkpoint(tmp_path / "c.pth"))


def test_pickles_that_are_deep_or_huge(tmp_path: Path) -> None:
    base, path = saved({}), tmp_path / "c.pth"
    for program in (
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x02" + b"]" + b"]a" * 5,
        b"\x80\x04\x8e" + struct.pack("<Q", 10**12) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 10**12) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b".",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.",
        pickle.dumps({"a": 1})[:-3],
    ):
        data = anew(base, lambda members, program=program: members.update({"archive/data.pkl": program}))
        path.write_bytes(data)
        try:
            read_checkpoint(path)
        except CalibrationError:
            pass
        else:
            assert program.endswith(b"]a")
