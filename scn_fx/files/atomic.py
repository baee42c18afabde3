# SPDX-License-Identifier: Apache-2.0
"""Writes files whole or not at all: whatever goes wrong, the earlier file stays as it was.

The content goes into a temporary file in the same folder, under a name that no other process has (random,
made with O_EXCL: process numbers repeat between containers that share a volume). When it is complete and on
the disk it takes the name. A link is kept, and the file behind it replaced. Devices, pipes and descriptors
(/dev/stdout) have no earlier content to lose and are written directly. A process that is killed in between
leaves the temporary file (`.NAME.….partial`) and nothing else.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO

from scn_fx.errors import WriteError
from scn_fx.files.descriptors import own_descriptor

__all__ = ["check_writable", "partial_name", "replaced", "write_file", "write_files"]

Path = str | os.PathLike[str]
Writer = Callable[[BinaryIO], object]

_TRIES = 100
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
_ADVICE = {
    errno.ENOSPC: "Free space on its disk, or name a file on another one.",
    errno.EDQUOT: "Free space, or name a file elsewhere: your quota on this disk is used up.",
    errno.EFBIG: "It is larger than this process or file system allows (ulimit -f); name a file elsewhere.",
    errno.EROFS: "Its file system is read-only: name a file elsewhere.",
    errno.EACCES: "Its folder or the file itself is write-protected: change that, or name another file.",
    errno.EPERM: "Its folder or the file itself is write-protected: change that, or name another file.",
    errno.ENOENT: "Make it, or name a file elsewhere.",
    errno.ENOTDIR: "Name a file elsewhere.",
    errno.EISDIR: "Name a file in it.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "It is a link that leads in a circle: remove it.",
    errno.ENXIO: "It is a socket, or a pipe that nobody reads: name a file.",
}


def write_file(path: Path, content: bytes | str | Writer) -> None:
    """Write `content` to `path`: bytes, a text (UTF-8, line ends as they are), or a function that writes to a
    binary file object. Raises as `write_files`."""
    write_files({path: content})


def write_files(contents: Mapping[Path, bytes | str | Writer]) -> None:
    """Write several files that belong together: all are complete before the first takes its name.

    New files have the mode that the umask gives, replaced ones keep theirs (their other hard links keep the
    old content). The content is on the disk when this returns.

    Raises:
        WriteError: a file cannot be written; the files of before are unchanged, nothing is left behind.
    """
    with ExitStack() as stack:
        waiting = []
        for path, content in contents.items():
            target = _Target(path)
            stack.callback(target.discard)
            with target.errors():
                stream = target.open()
                if isinstance(content, bytes | str):
                    stream.write(content.encode("utf-8") if isinstance(content, str) else content)
                else:
                    content(stream)
                target.finish()
            waiting.append(target)
        for target in waiting:
            with target.errors():
                target.commit()


@contextmanager
def replaced(path: Path) -> Iterator[str]:
    """For writers that want a name: yields that of a temporary file, whose content `path` has afterwards.

    If the block raises, `path` stays as it was. Raises WriteError as `write_files` does.
    """
    target = _Target(path)
    try:
        with target.errors():
            target.open()
            yield target.reserve()
            target.finish()
            target.commit()
    finally:
        target.discard()


def check_writable(path: Path) -> None:
    """WriteError if it is plain beforehand that no file can be written at `path`. Asked before long work."""
    target = _Target(path)
    with target.errors():
        target.check()


def partial_name(name: str) -> str:
    """A hidden name that no other process makes up, for what will be called `name`."""
    return f".{name[:40]}.{os.urandom(8).hex()}.partial"


class _Target:
    """One file on its way: a temporary beside the real file, or the device itself."""

    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)
        self._real = self.path
        self._partial: str | None = None
        self._stream: BinaryIO | None = None
        self._direct = False
        self._reserved: str | None = None

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns the system's errors about this file into ours."""
        try:
            yield
        except WriteError:
            raise
        except BrokenPipeError:
            raise  # the reader of a pipe has seen enough
        except OSError as error:
            if error.filename not in (
                None,
                self.path,
                self._real,
                self._partial,
                self._reserved,
                self._folder,
            ):
                raise
            raise self._error(error.errno, error.strerror or str(error)) from error

    @property
    def _folder(self) -> str:
        return os.path.dirname(self._real) or "."

    def _error(self, number: int | None, reason: str) -> WriteError:
        advice = _ADVICE.get(number or 0, "Name a file elsewhere.")
        made = WriteError(f"{self.path} cannot be written: {reason}. {advice}")
        made.errno = number
        return made

    def _check_name(self) -> None:
        try:
            possible = b"\0" not in os.fsencode(self.path)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise WriteError(
                f"{self.path!r} is no path: it has characters that no file name has. Name another."
            )

    def check(self) -> os.stat_result | None:
        """What is there now; None if nothing. Raises what stands against writing there."""
        self._check_name()
        if own_descriptor(self.path) is None:
            self._real = os.path.realpath(self.path)
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise self._error(errno.EISDIR, "it is a folder")
        if found is None and own_descriptor(self.path) is not None:
            raise self._error(errno.EBADF, "this process has no such descriptor")
        self._direct = found is not None and (
            own_descriptor(self.path) is not None or not stat.S_ISREG(found.st_mode)
        )
        if self._direct:
            return found
        if not os.path.isdir(self._folder):
            given = os.path.dirname(self.path) or "."
            shown = given if os.path.realpath(given) == self._folder else self._folder
            if os.path.exists(self._folder):
                raise self._error(errno.ENOTDIR, f"{shown} is no folder")
            raise self._error(errno.ENOENT, f"its folder {shown} does not exist")
        if found is not None and not os.access(self.path, os.W_OK):
            raise self._error(errno.EACCES, "it is write-protected")  # renaming would not mind
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise self._error(errno.EACCES, f"its folder {self._folder} is write-protected")
        return found

    def open(self) -> BinaryIO:
        """The stream that takes the content."""
        found = self.check()
        if self._direct:
            number = own_descriptor(self.path)
            for stream in (sys.stdout, sys.stderr):
                with suppress(AttributeError, ValueError, OSError):  # None, or closed
                    stream.flush()
            descriptor = os.open(self.path, os.O_WRONLY) if number is None else os.dup(number)
            self._stream = os.fdopen(descriptor, "wb")
            return self._stream
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        for _ in range(_TRIES):
            name = os.path.join(self._folder, partial_name(os.path.basename(self._real)))
            try:
                descriptor = os.open(name, flags, 0o666)
            except FileExistsError:
                continue
            self._partial = name
            break
        else:
            raise self._error(errno.EEXIST, "no free name for a temporary file")
        self._stream = os.fdopen(descriptor, "wb")
        if found is not None and hasattr(os, "fchmod"):
            with suppress(PermissionError):  # another user's mode; the content matters more
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & 0o777)
        return self._stream

    def reserve(self) -> str:
        """A name under which another writer can make the content."""
        assert self._stream is not None
        if self._direct:
            import tempfile  # with what it imports, a tenth of the time that importing the engine takes

            descriptor, self._reserved = tempfile.mkstemp()
            os.close(descriptor)
            return self._reserved
        self._stream.close()
        assert self._partial is not None
        return self._partial

    def finish(self) -> None:
        """Everything is written: bring it to the disk."""
        assert self._stream is not None
        if self._reserved is not None:
            with open(self._reserved, "rb") as source:
                while piece := source.read(1 << 20):
                    self._stream.write(piece)
        if self._stream.closed:  # another writer has had the name, and may have made the file anew
            assert self._partial is not None
            self._stream = open(self._partial, "r+b")  # noqa: SIM115
        self._stream.flush()
        if not self._direct:
            try:
                os.fsync(self._stream.fileno())
            except OSError as error:
                if error.errno not in _NO_FSYNC:
                    raise
        self._stream.close()

    def commit(self) -> None:
        """The content takes the name."""
        if self._partial is None:
            return
        os.replace(self._partial, self._real)
        self._partial = None
        with suppress(OSError):  # not every system can; the file is there all the same
            descriptor = os.open(self._folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def discard(self) -> None:
        """Remove what is not committed."""
        if self._stream is not None:
            with suppress(OSError, ValueError):  # a full disk fails to take the rest once more
                self._stream.close()
        for name in (self._partial, self._reserved):
            if name is not None:
                with suppress(OSError):
                    os.unlink(name)
