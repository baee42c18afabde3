# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from scn_fx.cli.arrays import write_result
from scn_fx.errors import WriteError
from scn_fx.files.atomic import check_writable, replaced, write_file, write_files
from scn_fx.lidar import read_tensor, write_tensor

OLD = b"the file of before"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A file with content; when the test is over, nothing but it may be in its folder."""
    path = tmp_path / "target"
    path.write_bytes(OLD)
    yield path
    assert os.listdir(tmp_path) == ["target"]


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("error", [RuntimeError, Interrupted, KeyboardInterrupt, MemoryError])
def test_a_writer_that_fails_in_the_middle(target: Path, error: type[BaseException]) -> None:
    def half(file: BinaryIO) -> None:
        file.write(b"half" * 100_000)
        raise error

    with pytest.raises(error):
        write_file(target, half)
    with pytest.raises(error), replaced(target) as name:
        Path(name).write_bytes(b"half")
        raise error
    assert target.read_bytes() == OLD


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_the_system_fails_at_the_end(target: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(
        WriteError, match=r"target cannot be written: Input/output error\. Name a file elsewhere"
    ):
        write_file(target, b"new")
    monkeypatch.undo()
    assert target.read_bytes() == OLD


FULL = """
import resource, sys
import numpy as np
from pathlib import Path
from scn_fx.cli.arrays import write_result
from scn_fx.errors import WriteError
from scn_fx.files.atomic import replaced
from scn_fx.lidar import write_tensor

unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, unlimited))
noise = np.frombuffer(np.random.default_rng(0).bytes(80_000), np.int32).reshape(-1, 4)
path = Path(sys.argv[1])

def through_a_name():
    with replaced(path) as name:
        Path(name).write_bytes(noise.tobytes())

for write in (
    lambda: write_tensor(path, noise),
    lambda: write_result(path.with_suffix(".npz"), noise),
    lambda: write_result(path.with_suffix(".tensor"), (noise[:4].astype(np.float32), noise)),
    through_a_name,
):
    try:
        write()
    except WriteError as error:
        print(error.errno, "cannot be written: File too large" in str(error))
# What counts lines writes its counts at the end.
resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
"""


def test_a_full_disk(target: Path) -> None:
    """Files end at 5,000 bytes: the kernel refuses more just as on a full disk."""
    done = subprocess.run([sys.executable, "-c", FULL, target], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{errno.EFBIG} True"] * 4 and done.stderr == ""
    assert target.read_bytes() == OLD


def test_files_that_belong_together_are_replaced_together(tmp_path: Path) -> None:
    """The second cannot be written: the first stays with it."""
    values, sites = np.ones((2, 3), np.float32), np.zeros((2, 4), np.int32)
    files = write_result(tmp_path / "out.tensor", (values, sites))
    with pytest.raises(WriteError):
        write_files({files[0]: b"new", tmp_path: b"new"})
    assert np.array_equal(read_tensor(files[0]), values) and np.array_equal(read_tensor(files[1]), sites)
    assert len(os.listdir(tmp_path)) == 2


def test_modes_are_those_of_the_umask_or_of_the_file_before(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    before = os.umask(0o027)
    try:
        plain.write_bytes(b"")
        write_file(tmp_path / "new", b"x")
        with replaced(tmp_path / "named") as name:
            Path(name).write_bytes(b"x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == mode(tmp_path / "named") == mode(plain) == 0o640
    plain.chmod(0o604)
    write_file(plain, b"x")
    assert mode(plain) == 0o604


def test_a_link_stays_and_leads_to_the_new_content(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("real/there", "real/not_yet"):
        link = tmp_path / f"link_{name[5:]}"
        link.symlink_to(name)
        write_file(link, b"new")
        assert link.is_symlink() and (tmp_path / name).read_bytes() == b"new"
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(WriteError, match="circle cannot be written"):
        write_file(tmp_path / "circle", b"x")
    assert sorted(os.listdir(tmp_path / "real")) == ["not_yet", "there"]


def test_long_and_odd_names(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127, "with\nlines ", os.fsdecode(b"caf\xe9.npz")):
        write_file(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"
    with pytest.raises(WriteError, match="Choose a shorter name"):
        write_file(tmp_path / ("n" * 256), b"x")
    with pytest.raises(WriteError, match="is no path: it has characters that no file name has"):
        write_file(tmp_path / "a\0b", b"x")
    with pytest.raises(ValueError, match="null"), replaced(tmp_path / "x"):
        raise ValueError("null")


def test_what_stands_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for path, words in (
        ("gone/x", "its folder gone does not exist. Make it"),
        (".", "it is a folder. Name a file in it"),
        ("file/x", "file is no folder"),
    ):
        for write in (
            lambda path: write_file(path, b"x"),
            check_writable,
            lambda path: replaced(path).__enter__(),
        ):
            with pytest.raises(WriteError, match=words):
                write(path)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("locked", ["folder", "file"])
def test_write_protection_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: str) -> None:
    """Renaming would replace a file that its owner has protected. (The superuser may, whatever the mode.)"""
    target = tmp_path / "target"
    target.write_bytes(OLD)
    protected = str(tmp_path if locked == "folder" else target)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, how: allowed(path, how) and os.fspath(path) != protected)
    with pytest.raises(WriteError, match="write-protected: change that, or name another file"):
        write_file(target, b"new")
    assert target.read_bytes() == OLD and os.listdir(tmp_path) == ["target"]


def test_devices_pipes_and_descriptors_are_written_directly(tmp_path: Path) -> None:
    write_file("/dev/null", b"x")
    with replaced("/dev/null") as name:
        Path(name).write_bytes(b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and not os.path.exists(name)
    with pytest.raises(WriteError, match="No space left on device"):
        write_file("/dev/full", b"x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    for write in (lambda: write_file(pipe, b"through"), lambda: _by_name(pipe, b"through")):
        reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
        reader.start()
        write()
        reader.join()
    assert found == [b"through"] * 2 and stat.S_ISFIFO(pipe.stat().st_mode)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(WriteError, match="socket"):
            write_file(tmp_path / "socket", b"x")
    code = "import sys\nfrom scn_fx.files.atomic import write_file\nprint('1', end='')\n"
    code += "write_file('/dev/stdout', '2')\nwrite_file('/dev/fd/1', b'3')"
    with (tmp_path / "redirected").open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "redirected").read_bytes() == b"123"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout == b"123"
    assert sorted(os.listdir(tmp_path)) == ["pipe", "redirected", "socket"]


def _by_name(path: Path, data: bytes) -> None:
    with replaced(path) as name:
        Path(name).write_bytes(data)


SAME_NAME = """
import os, sys
os.getpid = lambda: 7  # as in two containers that share a volume
from scn_fx.files.atomic import write_file
for _ in range(200):
    write_file(sys.argv[1], sys.argv[2] * 50_000)
"""


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "target"
    write_file(path, b"a" * 50_000)
    jobs = [subprocess.Popen([sys.executable, "-c", SAME_NAME, path, text]) for text in "ab"]
    while any(job.poll() is None for job in jobs):
        assert path.read_bytes() in (b"a" * 50_000, b"b" * 50_000)
    assert [job.returncode for job in jobs] == [0, 0] and os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("write", [write_tensor, lambda path, array: write_result(path, array)])
def test_writers_keep_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, Any], object]
) -> None:
    for name in ("a.tensor", "a.npz") if write is not write_tensor else ("a.tensor",):
        path = tmp_path / name
        write(path, np.ones(3, np.float32))
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
            )
            with pytest.raises(WriteError, match=r"full\. Free space"):
                write(path, np.zeros(3, np.float32))
        assert path.read_bytes() == before
        path.unlink()
    assert os.listdir(tmp_path) == []
