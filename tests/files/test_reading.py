# SPDX-License-Identifier: Apache-2.0
"""What is read is a regular file of a possible size; nothing else is waited for or read without end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quant
from scn_fx import Engine
from scn_fx.cli.arrays import read_result
from scn_fx.errors import LidarError, ScnError
from scn_fx.files import reading
from scn_fx.files.onnx_models import read_model
from scn_fx.files.reading import FileKind, check_file, open_file, read_file, size_text
from scn_fx.lidar import guess_format, read_grid, read_points, read_tensor, write_tensor
from scn_fx.onnx import write_metadata
from scn_fx.quant.checkpoint_files import file_sha256, read_checkpoint
from tests.quant.graphs import residual

KIND = FileKind(LidarError, 1000, "a test file")

READERS: dict[str, Callable[[Path], Any]] = {
    "x.tensor": read_tensor,
    "x.bin": read_points,
    "y.bin": guess_format,
    "x.json": read_grid,
    "x.yaml": read_grid,
    "x.npz": lambda path: read_result(str(path)),
    "x.npy": lambda path: read_result(str(path)),
    "x.pth": read_checkpoint,
    "y.pth": file_sha256,
    "z.json": lambda path: quant.load_cache(residual(), path),
    "x.onnx": Engine,
    "y.onnx": read_model,
    "z.onnx": lambda path: write_metadata(path, residual()),
}


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A reader that waits for a pipe fails the test instead of stopping it."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("name", READERS)
def test_everything_but_a_regular_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: None, "but there is none. Check the path"),
        (path.mkdir, "got a folder. Name a file in it"),
        (lambda: os.mkfifo(path), r"got a named pipe \(FIFO\). Copy what it gives into a file"),
        (lambda: path.symlink_to("/dev/zero"), "got a character device"),
        (lambda: path.symlink_to(path), "it cannot be read: .*Check path"),
        (lambda: os.truncate(_touched(path), 1 << 40), r"of at most [\d.]+ [MG]iB, got 1024 GiB"),
        (lambda: path.write_bytes(b""), "."),
    ]
    with socket.socket(socket.AF_UNIX) as listener:
        cases.append((lambda: listener.bind(str(path)), "got a socket"))
        for make, words in cases:
            make()
            if name == "y.pth" and words == ".":  # a hash is no judgement on the content
                path.unlink()
                continue
            with pytest.raises(ScnError, match=words) as raised:
                READERS[name](path)
            assert str(path) in str(raised.value)
            if path.is_dir():
                path.rmdir()
            elif os.path.lexists(path):
                path.unlink()


def _touched(path: Path) -> Path:
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("name", [name for name in READERS if name != "y.pth"])
def test_paths_that_no_file_can_have(name: str) -> None:
    for path in (f"a\0{name}", f"\ud800{name}", f"{'n' * 300}{name}"):
        with pytest.raises(ScnError):
            READERS[name](Path(path))


def test_a_file_that_changes_kind_behind_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a name and the opening somebody puts a pipe there."""
    path = tmp_path / "x"
    path.write_bytes(b"")
    check = reading.check_file

    def and_exchange(*given: Any) -> None:
        check(*given)
        path.unlink()
        os.mkfifo(path)

    monkeypatch.setattr(reading, "check_file", and_exchange)
    with pytest.raises(LidarError, match="got a named pipe"), open_file(path, KIND):
        pass


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    for size, words in ((7, "longer"), (3, "shorter")):
        with open_file(path, KIND) as source, pytest.raises(LidarError, match=words):
            os.truncate(path, size)
            source.content()
        path.write_bytes(b"12345")
    assert read_file(path, KIND) == b"12345"


def test_files_in_virtual_file_systems_have_no_size() -> None:
    with pytest.raises(LidarError, match="became longer"):
        read_file("/proc/self/status", KIND)


def test_sizes_for_people() -> None:
    texts = [size_text(n) for n in (0, 1023, 1024, 64 << 20, 5 << 30)]
    assert texts == ["0 bytes", "1023 bytes", "1 KiB", "64 MiB", "5 GiB"]


PIPED = """
import sys
from scn_fx.files.reading import FileKind, read_file
from scn_fx.errors import LidarError
for path in sys.argv[1:]:
    try:
        print(len(read_file(path, FileKind(LidarError, 100_000, pipes=True))))
    except LidarError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("head -c 70000 /dev/zero |", "70000"),
        ("head -c 5 /dev/zero |", "5"),
        ("cat /dev/zero |", "of at most 97.66 KiB, got more"),
    ],
)
def test_an_open_pipe_is_read_up_to_the_limit(source: str, expected: str) -> None:
    done = subprocess.run(
        f"{source} '{sys.executable}' -c '{PIPED}' /dev/stdin", shell=True, capture_output=True, text=True
    )
    assert expected in done.stdout, done.stderr


def test_standard_input_that_is_no_pipe(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(300))
    for given, expected in ((path, "300"), (Path("/dev/zero"), "got a character device")):
        with given.open("rb") as stream:
            done = subprocess.run(
                [sys.executable, "-c", PIPED, "/dev/stdin"], stdin=stream, capture_output=True, text=True
            )
        assert expected in done.stdout, done.stderr
    with pytest.raises(LidarError, match=r"got a character device|there is none|cannot be read"):
        check_file("/dev/fd/987654", KIND)


def test_points_come_through_a_pipe(tmp_path: Path) -> None:
    write_tensor(tmp_path / "a.tensor", np.ones((3, 4), np.float32))
    code = "from scn_fx.lidar import read_points\nprint(read_points('/dev/stdin').shape)"
    done = subprocess.run(
        f"cat '{tmp_path}/a.tensor' | '{sys.executable}' -c \"{code}\"",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "(3, 4)\n", done.stderr
