# SPDX-License-Identifier: Apache-2.0
"""Arrays of numbers in `.npy` and `.npz` files.

The header of a `.npy` is read by its grammar, not by Python's, and its shape is compared with the bytes
that are there before anything is allocated; `numpy.load` allocates first. Python objects are never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from scn_fx.errors import ScnError
from scn_fx.files.archives import Archive, open_archive
from scn_fx.files.limits import largest_array_bytes
from scn_fx.files.reading import FileKind, Path, SourceFile, open_file, size_text

__all__ = ["ArrayArchive", "open_npz", "read_npy"]

Array = npt.NDArray[Any]

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_MOST_DIMENSIONS = 32
_PIECE = 1 << 20
_ADVICE = "It is damaged, or no plain array: write plain arrays again with numpy.save or numpy.savez."

_ITEMS = {
    "descr": r"(?:'(?P<dtype>[^']*)'|\"(?P<dtype2>[^\"]*)\"|(?P<record>\[.*\]))",
    "fortran_order": r"(?P<fortran>True|False)",
    "shape": r"\((?P<shape>[\d\s,]*)\)",
}
_ITEM = "|".join(rf"(?:'{name}'|\"{name}\")\s*:\s*{value}" for name, value in _ITEMS.items())
_ONE = re.compile(rf"\s*(?:{_ITEM})\s*", re.DOTALL)


class _Stream(Protocol):
    """The bytes of one .npy: a file, or a member of an archive."""

    def read(self, count: int, /) -> bytes:
        """The next bytes, fewer than `count` at the end alone."""

    def readinto(self, memory: memoryview, /) -> int:
        """Fills `memory` from its start with the next bytes; how many these are, 0 at the end alone."""


def read_npy(path: Path, error: type[ScnError]) -> Array:
    """The array of a `.npy` file.

    Raises `error` unless it is a complete file of numbers (bool, integers, float16 to float64, of either byte
    order), of nothing behind the array, and of at most 4 GiB or half of the memory.
    """
    with open_file(path, _kind("a .npy file", error)) as source:
        return _array(source.stream, source.size, source, "")


class ArrayArchive:
    """The arrays of an `.npz` file, by name."""

    def __init__(self, archive: Archive, source: SourceFile) -> None:
        self._archive, self._source = archive, source
        self._members: dict[str, str] = {}
        for name in archive.names:
            key = name.removesuffix(".npy")
            if key in self._members:
                raise source.error(
                    f"two of its arrays are named {key[:60]!r}. Write it again with one of each name."
                )
            self._members[key] = name

    @property
    def names(self) -> list[str]:
        """Names of the arrays, as numpy.savez was given them."""
        return list(self._members)

    def __getitem__(self, name: str) -> Array:
        """The array `name`; its CRC is checked. Raises the error of `open_npz` for a damaged one."""
        what = f"its array {name[:60]!r} cannot be read: "
        with self._archive.member(self._members[name]) as member:
            found = _array(member, member.size, self._source, what)
            member.finish()
        return found


@contextmanager
def open_npz(path: Path, error: type[ScnError]) -> Iterator[ArrayArchive]:
    """The arrays of an `.npz` file, each read when it is asked for.

    Raises `error` for a file that is no complete archive of numpy.savez or numpy.savez_compressed, and,
    when an array is read, for one that `read_npy` would refuse.
    """
    with open_file(path, _kind("an .npz file", error)) as source, open_archive(source) as archive:
        yield ArrayArchive(archive, source)


def _kind(what: str, error: type[ScnError]) -> FileKind:
    return FileKind(error, largest_array_bytes() + (16 << 20), what)


def _array(stream: _Stream, size: int, source: SourceFile, what: str) -> Array:
    """The array in a stream of `size` bytes; `what` begins the message of an error."""
    start, dtype, fortran, shape = _header(stream, source, what)
    count = prod(shape)
    nbytes = count * dtype.itemsize
    if nbytes != size - start:
        state = "truncated" if nbytes > size - start else "followed by bytes that do not belong to it"
        raise source.error(
            f"{what}expected {nbytes} bytes for {dtype.name} {list(shape)}, got {max(size - start, 0)}. "
            "The array is "
            f"{state}: write it again."
        )
    if nbytes > largest_array_bytes():
        raise source.error(
            f"{what}an array of {size_text(nbytes)} is too large; at most "
            f"{size_text(largest_array_bytes())} are read "
            "here. Split it, or use a larger machine."
        )
    try:
        flat = np.empty(nbytes, np.uint8)
        made: Array = flat.view(dtype).reshape(shape, order="F" if fortran else "C")
    except (MemoryError, ValueError) as error:  # ValueError: empty, but with impossible other dimensions
        raise source.error(
            f"{what}an array {list(shape)} of {size_text(nbytes)} cannot be made here: {error}. {_ADVICE}"
        ) from error
    filled = 0
    while filled < nbytes:
        try:
            count = stream.readinto(flat.data[filled : filled + _PIECE])
        except OSError as error:
            raise _broken(source, what, error) from error
        if not count:
            raise source.error(f"{what}expected {nbytes} bytes of values, got {filled}. {_ADVICE}")
        filled += count
    return made


def _read(stream: _Stream, count: int, source: SourceFile, what: str) -> bytes:
    try:
        return stream.read(count)
    except OSError as error:
        raise _broken(source, what, error) from error


def _broken(source: SourceFile, what: str, error: OSError) -> ScnError:
    return source.error(f"{what}it cannot be read to its end: {error.strerror or error}. Copy it again.")


def _header(
    stream: _Stream, source: SourceFile, what: str
) -> tuple[int, np.dtype[Any], bool, tuple[int, ...]]:
    """Where the values start, their dtype, whether they are in Fortran's order, their shape."""
    start = _read(stream, 8, source, what)
    if start[:6] != _MAGIC or len(start) < 8:
        raise source.error(f"{what}expected the magic bytes of a .npy, got {start[:6]!r}. {_ADVICE}")
    version = start[6]
    if version not in (1, 2, 3):
        raise source.error(f"{what}expected version 1, 2 or 3 of .npy, got {version}. {_ADVICE}")
    width = 2 if version == 1 else 4
    length = int.from_bytes(_read(stream, width, source, what), "little")
    if length > _LONGEST_HEADER:
        raise source.error(
            f"{what}expected a header of at most {_LONGEST_HEADER} bytes, got {length}. {_ADVICE}"
        )
    raw = _read(stream, length, source, what)
    if len(raw) < length:
        raise source.error(f"{what}expected a header of {length} bytes, got {len(raw)}. {_ADVICE}")
    found = _items(raw.decode("latin-1"))
    if found is None:
        raise source.error(
            f"{what}expected a header with descr, fortran_order and shape, got {raw[:80]!r}. {_ADVICE}"
        )
    dtype = _dtype(found["dtype"])
    if dtype is None:
        kind = "records" if found["dtype"] is None else found["dtype"][:40]
        if kind.lstrip("|<>=")[:1] == "O":
            kind = "Python objects"
        raise source.error(
            f"{what}expected numbers (bool, integers, float16, float32, float64), got {kind}. Python "
            "objects, texts "
            "and records are not read: write plain arrays again with numpy.save or numpy.savez."
        )
    words = [word.strip() for word in found["shape"].split(",")]
    if words[-1] == "":  # a comma ends the tuple, or it is empty
        words.pop()
    if len(words) > _MOST_DIMENSIONS or not all(re.fullmatch(r"\d{1,18}", word) for word in words):
        raise source.error(f"{what}expected a shape, got ({found['shape'][:80]}). {_ADVICE}")
    return 8 + width + length, dtype, found["fortran"] == "True", tuple(map(int, words))


def _items(text: str) -> dict[str, Any] | None:
    """The three entries of a header, in any order; None if it is another text."""
    text = text.strip()
    if text[:1] != "{" or text[-1:] != "}":
        return None
    text, at = text[1:-1], 0
    found: dict[str, Any] = {}
    for number in range(3):
        match = _ONE.match(text, at)
        if match is None:
            return None
        groups = {key: value for key, value in match.groupdict().items() if value is not None}
        if groups.keys() & found.keys():
            return None
        found.update(groups)
        at = match.end()
        if number < 2:
            if text[at : at + 1] != ",":
                return None
            at += 1
    if text[at:].strip() not in ("", ","):
        return None
    dtype = found.get("dtype", found.get("dtype2"))
    if {"fortran", "shape"} - found.keys() or (dtype is None and "record" not in found):
        return None
    return {"dtype": dtype, "fortran": found["fortran"], "shape": found["shape"]}


def _dtype(text: str | None) -> np.dtype[Any] | None:
    """The dtype of numbers that `text` names; None for all others."""
    match = re.fullmatch(r"([<>=|])(b1|[iu][1248]|f[248])", text or "")
    return None if match is None else np.dtype(match[0])
