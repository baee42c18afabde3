# SPDX-License-Identifier: Apache-2.0
"""The `.tensor` container: what is written comes back, its bytes are as documented, damage is named."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scn_fx.errors import LidarError
from scn_fx.lidar import TENSOR_DTYPES, read_tensor, write_tensor


@settings(max_examples=40, deadline=None)
@given(
    code=st.sampled_from(sorted(TENSOR_DTYPES)),
    shape=st.lists(st.integers(0, 4), max_size=5),
    seed=st.integers(0, 2**16),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, code: int, shape: list[int], seed: int) -> None:
    path = tmp_path_factory.mktemp("tensor") / "a.tensor"
    dtype = TENSOR_DTYPES[code]
    array = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    write_tensor(path, array)
    back = read_tensor(path)
    assert back.dtype == dtype and back.shape == tuple(shape)
    assert np.array_equal(back, array)
    assert back.flags.writeable


def test_bytes_are_the_documented_ones(tmp_path: Path) -> None:
    write_tensor(tmp_path / "a.tensor", np.array([[1, -2, 3]], np.int32))
    expected = struct.pack("<iiiii", 0x33FF1101, 2, 1, 1, 3) + struct.pack("<iii", 1, -2, 3)
    assert (tmp_path / "a.tensor").read_bytes() == expected


def test_other_memory_layouts_are_written_in_c_order(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name, layout in (("t", array.T), ("strided", array[:, ::2]), ("big", array.astype(">f4"))):
        write_tensor(tmp_path / name, layout)
        assert np.array_equal(read_tensor(tmp_path / name), layout)


def _header(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at least 12 bytes, got a file of 0 bytes"),
        (_header(0x33FF1101, 2), "at least 12 bytes, got a file of 8 bytes"),
        (_header(0x12345678, 1, 1, 0), "magic 0x33ff1101, got 0x12345678"),
        (_header(-1, 1, 1, 0), "magic 0x33ff1101, got 0xffffffff"),
        (_header(0x33FF1101, -1, 1), "0 to 16 dimensions, got -1"),
        (_header(0x33FF1101, 17, 1), "0 to 16 dimensions, got 17"),
        (_header(0x33FF1101, 1, 9, 0), "dtype code among .*, got 9"),
        (_header(0x33FF1101, 3, 1, 2), "3 dimensions in a header of 24 bytes, got a file of 16 bytes"),
        (_header(0x33FF1101, 2, 1, 2, -3), r"dimensions >= 0, got \[2, -3\]"),
        (_header(0x33FF1101, 1, 1, 2, 5), r"expected 24 bytes for int32 \[2\], got 20.*truncated"),
        (_header(0x33FF1101, 1, 1, 1, 5, 6), r"expected 20 bytes for int32 \[1\], got 24.*do not belong"),
        (_header(0x33FF1101, 3, 5, *[2**31 - 1] * 3), "truncated"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "damaged.tensor"
    path.write_bytes(content)
    with pytest.raises(LidarError, match=message) as error:
        read_tensor(path)
    assert "damaged.tensor" in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(LidarError, match="there is none"):
        read_tensor(tmp_path / "none.tensor")
    with pytest.raises(LidarError, match="got a folder"):
        read_tensor(tmp_path)


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LidarError, match="got float64"):
        write_tensor(tmp_path / "a", np.zeros(3))
    with pytest.raises(LidarError, match="at most 16 dimensions"):
        write_tensor(tmp_path / "a", np.zeros((1,) * 17, np.float32))
    assert not (tmp_path / "a").exists()
