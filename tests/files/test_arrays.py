# SPDX-License-Identifier: Apache-2.0
"""`.npy` and `.npz`: what NumPy writes comes back, and damage of every kind gives our error."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from scn_fx.errors import ArgumentError
from scn_fx.files import arrays
from scn_fx.files.arrays import open_npz, read_npy
from scn_fx.files.limits import largest_array_bytes, machine_bytes

DTYPES = [
    f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")
]


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return out.getvalue()


def read_all(path: Path) -> dict[str, npt.NDArray[Any]]:
    with open_npz(path, ArgumentError) as file:
        return {name: file[name] for name in file.names}


def refused(path: Path, data: bytes, words: str = ".") -> None:
    path.write_bytes(data)
    with pytest.raises(ArgumentError, match=words) as raised:
        read_npy(path, ArgumentError) if path.suffix == ".npy" else read_all(path)
    assert str(raised.value).startswith(f"{path}: ")


@given(
    arrays_of.arrays(
        st.sampled_from([*DTYPES, "b1", "i1", "u1"]),
        arrays_of.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    ),
    st.sampled_from(["C", "F"]),
)
def test_what_numpy_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, array: npt.NDArray[Any], order: Any
) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    array = np.asarray(array, order=order)
    np.save(folder / "a.npy", array)
    np.savez(folder / "a.npz", array, x=array)
    np.savez_compressed(folder / "b.npz", array, x=array)
    for found in (read_npy(folder / "a.npy", ArgumentError), *read_all(folder / "a.npz").values()):
        assert (
            found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == array.tobytes()
        )
        assert found.flags.f_contiguous == array.flags.f_contiguous and found.flags.writeable
    assert read_all(folder / "a.npz").keys() == read_all(folder / "b.npz").keys() == {"arr_0", "x"}


@pytest.mark.parametrize(
    "header",
    [
        "{'descr':'<f4','fortran_order':False,'shape':(2,3)}",
        "{ 'shape' : ( 2 , 3 , ) , 'fortran_order' : False , 'descr' : \"<f4\" , }",
        '{"descr": "<f4", "fortran_order": False, "shape": (2, 3), }',
    ],
)
def test_headers_of_other_writers(tmp_path: Path, header: str) -> None:
    values = np.arange(6, dtype=np.float32)
    for version, form in ((1, "<H"), (2, "<I"), (3, "<I")):
        text = header.encode() + b" " * 9 + b"\n"
        start = b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, len(text))
        (tmp_path / "a.npy").write_bytes(start + text + values.tobytes())
        assert np.array_equal(read_npy(tmp_path / "a.npy", ArgumentError), values.reshape(2, 3))


def with_header(text: str, values: bytes = bytes(24), version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text.encode() + values


def header(descr: str = "'<f4'", order: str = "False", shape: str = "(2, 3)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


BAD_NPY = {
    b"": "magic bytes",
    b"\x93NUMPY": "magic bytes",
    b"\x93NUMPY\x09\x00" + bytes(50): "version 1, 2 or 3",
    b"\x93NUMPY\x02\x00"
    + struct.pack("<I", 2**32 - 1)
    + bytes(50): "header of at most 10000 bytes, got 4294967295",
    b"\x93NUMPY\x01\x00\x50\x00{'descr'": "a header of 80 bytes, got 8",
    with_header(header("'|O'")): "got Python objects.*write plain arrays again",
    with_header(header("'O'")): "got Python objects",
    with_header(header("[('a', '<f4'), ('b', '<i4')]")): "got records",
    with_header(header("'<U3'")): "got <U3",
    with_header(header("'<c8'")): "got <c8",
    with_header(header("'<M8[ns]'")): r"got <M8\[ns\]",
    with_header(header("'<f16'")): "got <f16",
    with_header(header("'|V2'")): r"got \|V2",
    with_header(header("''")): "expected numbers",
    with_header(header(shape="(2, 4)")): r"expected 32 bytes for float32 \[2, 4\], got 24.*truncated",
    with_header(header(shape="(2, 2)")): r"expected 16 bytes for float32 \[2, 2\], got 24.*do not belong",
    with_header(header(shape="(1000000, 1000000)")): "expected 4000000000000 bytes",
    with_header(header(shape="(9999999999999999999999,)")): "expected a shape",
    with_header(header(shape=f"({'9' * 5000},)")): "expected a shape",
    with_header(header(shape=f"({'1, ' * 40})")): "expected a shape",
    with_header(header(shape="(-2, 3)")): "expected a header",
    with_header(header(shape="(2, , 3)")): "expected a shape",
    with_header(header(shape="[2, 3]")): "expected a header",
    with_header(header(shape="(2.0, 3)")): "expected a header",
    with_header(header(shape="(0, 999999999999999999, 999999999999999999)"), b""): "cannot be made here",
    with_header(header(order="0")): "expected a header",
    with_header(header(order="__import__('os')")): "expected a header",
    with_header(
        "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (3,), }"
    ): "expected a header",
    with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1}"): "expected a header",
    with_header("{'descr': '<f4', 'shape': (6,)}"): "expected a header",
    with_header("(" * 5000): "expected a header",
    with_header("-" * 5000 + "1"): "expected a header",
    npy(np.ones(3)) + npy(np.ones(3)): "followed by bytes that do not belong",
}


@pytest.mark.parametrize("data", BAD_NPY, ids=lambda data: str(data[:60]))
def test_damaged_npy(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path / "a.npy", data, BAD_NPY[data])
    refused(tmp_path / "a.npz", packed({"a.npy": data}), f"its array 'a' cannot be read: .*{BAD_NPY[data]}")


def test_every_truncation_and_every_flipped_byte(tmp_path: Path) -> None:
    """Of archives, whose CRCs tell; what is not covered by them (times, flags of readers) changes nothing."""
    array = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    for method in (np.savez, np.savez_compressed):
        path = tmp_path / "a.npz"
        method(path, dense=array)
        data = path.read_bytes()
        for length in range(len(data)):
            refused(path, data[:length])
        taken = 0
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            try:
                found = read_all(path)
            except ArgumentError:
                continue
            taken += 1
            (value,) = found.values()
            assert np.array_equal(value, array)
        assert taken < len(data) / 3
        refused(path, data + b"\0", "does not end with a directory")


def damaged_zips() -> Iterator[tuple[str, bytes, str]]:
    one, two = npy(np.ones(3, np.float32)), npy(np.zeros(3, np.float32))
    plain = packed({"a.npy": one})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as target:
            target.writestr("a.npy", one)
            target.writestr("a.npy", two)
    yield "twice", out.getvalue(), "two members of the archive are named 'a.npy'"
    yield "ambiguous", packed({"a.npy": one, "a": two}), "two of its arrays are named 'a'"
    for name, method in (("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        yield name, packed({"a.npy": one}, method), f"packed with method {int(method)}"
    directory = plain.index(b"PK\1\2")
    for name, flag in (("encrypted", 1), ("strongly encrypted", 0x40)):
        made = bytearray(plain)
        made[directory + 8] |= flag
        yield name, bytes(made), "is encrypted. Write the file again without a password"
    for name, at, value in (("larger", 24, 10**9), ("packed larger", 20, 10**9), ("smaller", 24, 3)):
        made = bytearray(plain)
        struct.pack_into("<I", made, directory + at, value)
        yield name, bytes(made), "cannot hold"
    made = bytearray(plain)
    struct.pack_into("<I", made, directory + 42, 10**6)
    yield "elsewhere", bytes(made), "."
    made = bytearray(plain)
    struct.pack_into("<I", made, len(plain) - 10, 2**31)
    yield "a huge directory", bytes(made), "its zip directory has 2 GiB"
    yield "a comment", plain[:-2] + struct.pack("<H", 4) + b"note", "does not end with a directory"
    made = bytearray(packed({"a.npy": one, "b.npy": two}))
    struct.pack_into("<H", made, made.index(b"PK\1\2") + 32, 255)
    yield "an entry that hides the next", bytes(made), "should have 2 entries, got 1"
    yield "no npy", packed({"a.npy": b"text"}), "expected the magic bytes"
    yield "no directory", plain[: plain.index(b"PK\1\2")], "does not end with a directory"
    yield "text", b"hello" * 20, "does not end with a directory"


@pytest.mark.parametrize(("name", "data", "words"), list(damaged_zips()), ids=lambda value: str(value)[:20])
def test_damaged_archives(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    refused(tmp_path / "a.npz", data, words)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An honest archive of zeros: 32 KB for 32 MB."""
    monkeypatch.setattr(arrays, "largest_array_bytes", lambda: 1 << 20)
    data = packed({"a.npy": npy(np.zeros(1 << 25, np.uint8))}, zipfile.ZIP_DEFLATED)
    assert len(data) < 40_000
    refused(
        tmp_path / "a.npz", data, "an array of 32 MiB is too large; at most 1 MiB are read here. Split it"
    )
    # One that lies about it: the header of the array asks for more than the member has.
    big = with_header(header("'|u1'", shape="(1000000000000,)"), bytes(100))
    refused(tmp_path / "a.npz", packed({"a.npy": big}, zipfile.ZIP_DEFLATED), "expected 1000000000000 bytes")


def test_the_limit_follows_the_machine() -> None:
    memory = machine_bytes()
    assert memory is not None and memory > 1 << 26
    assert largest_array_bytes() == min(4 << 30, memory // 2)


def test_arrays_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(packed({"good.npy": npy(np.arange(3)), "bad.npy": b"no array"}))
    with open_npz(path, ArgumentError) as file:
        assert file.names == ["good", "bad"] and file["good"].tolist() == [0, 1, 2]
        with pytest.raises(ArgumentError, match="its array 'bad' cannot be read"):
            file["bad"]
