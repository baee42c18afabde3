# SPDX-License-Identifier: Apache-2.0
"""Opens files for reading: regular files of a bounded size, and nothing that could block or never end."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader

from scn_fx.errors import ScnError
from scn_fx.files.descriptors import own_descriptor

__all__ = ["FileKind", "SourceFile", "check_file", "open_file", "read_file", "size_text"]

Path = str | os.PathLike[str]

_KINDS = (
    (stat.S_ISDIR, "a folder", "Name a file in it."),
    (stat.S_ISFIFO, "a named pipe (FIFO)", "Copy what it gives into a file first."),
    (stat.S_ISCHR, "a character device", "Copy what it gives into a file first."),
    (stat.S_ISBLK, "a block device", "Copy what it gives into a file first."),
    (stat.S_ISSOCK, "a socket", "Copy what it gives into a file first."),
)
_PIECE = 1 << 20


@dataclass(frozen=True)
class FileKind:
    """What a reader expects, and how it refuses everything else."""

    error: type[ScnError]
    limit: int
    """Most bytes of such a file."""
    what: str = "a file"
    """Its name in messages, with an article."""
    pipes: bool = False
    """Whether an open pipe that the user passes (/dev/stdin, a shell's <(command)) serves as well: its reader
    reads it once, from start to end, up to the limit."""


@dataclass(frozen=True)
class SourceFile:
    """A file that is open for reading; its kind and size have been checked."""

    path: Path
    kind: FileKind
    stream: BufferedReader
    size: int
    """Bytes at the time of opening."""

    def error(self, text: str) -> ScnError:
        """The error of this kind with the path before `text`."""
        return self.kind.error(f"{os.fspath(self.path)}: {text}")

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from `start`; the kind's error if the file ends before, or cannot be read."""
        try:
            self.stream.seek(start)
            data = self.stream.read(count)
        except OSError as error:
            raise self.error(
                f"it cannot be read to its end: {error.strerror or error}. Copy it again."
            ) from error
        if len(data) != count:
            raise self.error(
                f"expected {self.size} bytes, but it became shorter while it was read. Try again."
            )
        return data

    def content(self) -> bytes:
        """The whole file."""
        try:
            data = self.read(0, self.size)
            more = self.stream.read(1)
        except MemoryError as error:
            raise self.error(
                f"its {size_text(self.size)} do not fit in the free memory. Split it, or use a larger "
                "machine."
            ) from error
        if more:
            raise self.error(
                f"expected {self.size} bytes, but it became longer while it was read. Try again."
            )
        return data


@contextmanager
def open_file(path: Path, kind: FileKind) -> Iterator[SourceFile]:
    """The regular file at `path`, open for reading.

    Raises the kind's error, which says what came instead and what to do: no file, a folder, pipe, device or
    socket, no permission, more bytes than the kind's limit. It neither waits for another process nor opens
    anything but a regular file.
    """
    check_file(path, kind)
    # Between the check and here another file may have taken the name; not to block costs nothing.
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _unreadable(path, kind, error) from error
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        _check(path, kind, found)
        yield SourceFile(path, kind, stream, found.st_size)


def read_file(path: Path, kind: FileKind) -> bytes:
    """The content of the file at `path`. Raises the kind's error as `open_file` does."""
    number = own_descriptor(path) if kind.pipes else None
    if number is not None:
        try:
            mode = os.fstat(number).st_mode
        except OSError as error:
            raise _unreadable(path, kind, error) from error
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return _drained(path, kind, number)
    with open_file(path, kind) as source:
        return source.content()


def check_file(path: Path, kind: FileKind) -> None:
    """Nothing if `path` is a regular file within the kind's limit; the kind's error otherwise."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, kind, error) from error
    _check(path, kind, found)


def size_text(count: int) -> str:
    """A number of bytes for people: "3 bytes", "64 MiB"."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"


def _check(path: Path, kind: FileKind, found: os.stat_result) -> None:
    for is_kind, name, advice in _KINDS:
        if is_kind(found.st_mode):
            raise kind.error(f"{os.fspath(path)}: expected {kind.what}, got {name}. {advice}")
    if not stat.S_ISREG(found.st_mode):
        raise kind.error(f"{os.fspath(path)}: expected {kind.what}, got something that is no regular file.")
    if found.st_size > kind.limit:
        raise _too_large(path, kind, size_text(found.st_size))


def _too_large(path: Path, kind: FileKind, came: str) -> ScnError:
    return kind.error(
        f"{os.fspath(path)}: expected {kind.what} of at most {size_text(kind.limit)}, got {came}. It is of "
        "another "
        "kind or damaged; if it is right, split it."
    )


def _unreadable(path: Path, kind: FileKind, error: OSError | ValueError) -> ScnError:
    start = f"{os.fspath(path)!s}: expected {kind.what},"
    if isinstance(error, FileNotFoundError):
        return kind.error(f"{start} but there is none. Check the path.")
    if isinstance(error, ValueError):  # a zero byte, or characters that no file name has
        return kind.error(f"{os.fspath(path)!r} is no path of a file: {error}. Check the path.")
    return kind.error(
        f"{start} but it cannot be read: {error.strerror or error}. Check path and permissions."
    )


def _drained(path: Path, kind: FileKind, number: int) -> bytes:
    """All that comes through a pipe of this process."""
    pieces, total = [], 0
    try:
        with os.fdopen(os.dup(number), "rb") as stream:
            while piece := stream.read(_PIECE):
                total += len(piece)
                if total > kind.limit:
                    raise _too_large(path, kind, "more")
                pieces.append(piece)
    except OSError as error:
        raise _unreadable(path, kind, error) from error
    return b"".join(pieces)
