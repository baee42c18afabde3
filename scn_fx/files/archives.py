# SPDX-License-Identifier: Apache-2.0
"""Zip archives (.npz, torch.save): the directory is checked before it is read, every byte against its CRC."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from scn_fx.files.reading import SourceFile, size_text

__all__ = ["Archive", "Member", "open_archive"]

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_LARGEST_DIRECTORY = 16 << 20
"""Bytes; an entry takes 46 and its name. Python needs some twenty times as much for one."""
_DEFLATE_RATIO = 1032
"""No deflated byte stands for more."""
_FOLDER = 0x10
"""Attribute of DOS."""
_PIECE = 1 << 20
_DAMAGED = "It is truncated or damaged: copy or write it again."


class Member:
    """One file of an archive, read once from start to end."""

    def __init__(self, source: SourceFile, info: zipfile.ZipInfo, stream: IO[bytes]) -> None:
        self.size = info.file_size
        """Bytes, unpacked: the directory's word for it, not more than its packed bytes can give."""
        self._source, self._info, self._stream = source, info, stream

    def read(self, count: int) -> bytes:
        """The next bytes: `count` of them, or fewer at the end. Raises the kind's error for damaged ones."""
        pieces = []
        while count > 0:
            try:
                piece = self._stream.read(min(count, _PIECE))
            except Exception as error:  # zlib, zipfile, EOFError, OSError: whatever the damage leads to
                raise damaged_member(self._source, self._info.filename, error) from error
            if not piece:
                break
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def readinto(self, memory: memoryview) -> int:
        """Fill `memory` with the next bytes; how many these are. Raises as `read`."""
        piece = self.read(len(memory))
        memory[: len(piece)] = piece
        return len(piece)

    def finish(self) -> None:
        """Read what is left; the kind's error unless size and CRC are those of the directory."""
        while self.read(_PIECE):  # the CRC is compared where the stream ends
            pass


class Archive:
    """An archive whose directory is sound: nothing encrypted, no two of one name, sizes that are possible."""

    def __init__(self, source: SourceFile, archive: zipfile.ZipFile) -> None:
        self._source, self._archive = source, archive
        infos = archive.infolist()
        self._infos = {info.filename: info for info in infos}
        self._check(infos)

    @property
    def names(self) -> list[str]:
        """Names of its members."""
        return list(self._infos)

    @property
    def without_crc(self) -> bool:
        """Whether its writer has left out all CRCs (torch.save can be told so)."""
        return bool(self._infos) and all(info.CRC == 0 for info in self._infos.values())

    @contextmanager
    def member(self, name: str) -> Iterator[Member]:
        """The member `name`, open for reading."""
        info = self._infos[name]
        try:
            stream = self._archive.open(info)
        except Exception as error:  # as in `Member.read`
            raise damaged_member(self._source, name, error) from error
        with stream:
            yield Member(self._source, info, stream)

    def check_contents(self) -> None:
        """Read all members; the kind's error if one is damaged."""
        for name in self._infos:
            with self.member(name) as member:
                member.finish()

    def require_plain(self) -> None:
        """The kind's error if a member is packed, or a folder to some readers.

        Few packed bytes may stand for very many; and torch's reader fills the tensor of a member that is
        marked as a folder with whatever is in memory.
        """
        for name, info in self._infos.items():
            if info.external_attr & _FOLDER or name.endswith(("/", "\\")):
                raise self._source.error(f"its member {name[:60]!r} is marked as a folder. {_DAMAGED}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise self._source.error(
                    f"its member {name[:60]!r} is packed; expected a plain archive. Write it again with the "
                    "program that made it, without repacking."
                )

    def _check(self, infos: list[zipfile.ZipInfo]) -> None:
        error = self._source.error
        if len(self._infos) < len(infos):
            ((twice, _),) = Counter(info.filename for info in infos).most_common(1)
            raise error(
                f"two members of the archive are named {twice[:60]!r}. Write it again with one of each name."
            )
        for info in infos:
            name = info.filename[:60]
            if info.flag_bits & 0x2041:
                raise error(f"its member {name!r} is encrypted. Write the file again without a password.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise error(
                    f"its member {name!r} is packed with method {info.compress_type}; expected stored or "
                    "deflated "
                    "ones. Write it again with the program that made it, without repacking."
                )
            stored = info.compress_type == zipfile.ZIP_STORED
            most = info.compress_size if stored else info.compress_size * _DEFLATE_RATIO
            if info.file_size > most or (stored and info.file_size != info.compress_size):
                raise error(
                    f"its member {name!r} should have {size_text(info.file_size)}, which its "
                    f"{size_text(info.compress_size)} in the file cannot hold. {_DAMAGED}"
                )
        packed = sum(info.compress_size for info in infos)
        if packed > self._source.size:
            raise error(
                f"its members should take {size_text(packed)}, the file has "
                f"{size_text(self._source.size)}. {_DAMAGED}"
            )


@contextmanager
def open_archive(source: SourceFile) -> Iterator[Archive]:
    """The zip archive that `source` is, its members stored or deflated.

    Raises the kind's error unless the file ends with its directory, as writers of .npz and checkpoints leave
    it (no comment, nothing behind it), and the directory is sound.
    """
    entries = _directory_entries(source)
    try:
        archive = zipfile.ZipFile(source.stream)
    except Exception as error:  # zipfile lets errors of its own and of what it calls through
        raise source.error(
            f"it is no complete zip archive ({error or type(error).__name__}). {_DAMAGED}"
        ) from error
    with archive:
        # Python's reader does not count: a wrong length hides the next ones.
        if len(archive.infolist()) != entries:
            raise source.error(
                f"its zip directory should have {entries} entries, got {len(archive.infolist())}. {_DAMAGED}"
            )
        yield Archive(source, archive)


def damaged_member(source: SourceFile, name: str, reason: Exception | str) -> Exception:
    """The error for a member that cannot be read."""
    text = str(reason) or type(reason).__name__
    return source.error(f"its member {name[:60]!r} cannot be read ({text}). {_DAMAGED}")


def _directory_entries(source: SourceFile) -> int:
    """How many entries the directory should have; it lies where the end says, and is not too large."""
    if source.size < _END.size:
        raise source.error(f"it is no complete zip archive: {source.size} bytes. {_DAMAGED}")
    at = source.size - _END.size
    mark, _, _, _, entries, size, offset, comment = _END.unpack(source.read(at, _END.size))
    if mark != b"PK\5\6" or comment:
        raise source.error(f"it is no complete zip archive: it does not end with a directory. {_DAMAGED}")
    if at >= _LOCATOR.size:
        mark, _, where, _ = _LOCATOR.unpack(source.read(at - _LOCATOR.size, _LOCATOR.size))
        if mark == b"PK\6\7":
            at -= _LOCATOR.size + _END64.size
            if at < 0 or where != at:
                raise source.error(f"the end of its zip directory is damaged. {_DAMAGED}")
            short = ((entries, 0xFFFF), (size, 0xFFFFFFFF), (offset, 0xFFFFFFFF))
            mark, _, _, _, _, _, _, *found = _END64.unpack(source.read(at, _END64.size))
            # Readers differ in which of the two they believe.
            agree = all(a in (b, most) for (a, most), b in zip(short, found, strict=True))
            if mark != b"PK\6\6" or not agree:
                raise source.error(f"the end of its zip directory is damaged. {_DAMAGED}")
            entries, size, offset = found
    if size > _LARGEST_DIRECTORY:
        raise source.error(
            f"its zip directory has {size_text(size)}, at most {size_text(_LARGEST_DIRECTORY)} are read. "
            f"{_DAMAGED}"
        )
    if offset + size != at or entries * 46 > size:
        raise source.error(
            f"its zip directory should be {size} bytes from byte {offset}, but it ends at byte {at}. "
            f"{_DAMAGED}"
        )
    return entries
