# SPDX-License-Identifier: Apache-2.0
"""The kernel files as each compiler of this machine makes them with the flags of the build."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.core.machine_code import Function, functions
from tests.cpp_programs import ROOT, find_cmake

__all__ = ["COMPILERS", "compiled"]


def _compilers() -> dict[str, str]:
    """Names and paths: g++, each Clang, and what CMake takes by itself; every program once."""
    names = ["g++", "clang++"]
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        if folder.is_dir():
            names += sorted(p.name for p in folder.iterdir() if re.fullmatch(r"clang\+\+-\d+", p.name))
    found: dict[str, str] = {}
    for name in (*names, os.environ.get("CXX", "c++")):
        path = shutil.which(name)
        if path is not None:
            found.setdefault(os.path.realpath(path), path)
    return {Path(path).name: path for path in found.values()}


COMPILERS = _compilers()
"""Paths by name; there is one at least where the engine was built."""


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


@cache
def _folder() -> Any:
    return tempfile.TemporaryDirectory(prefix="scn_fx_loops_")  # removed when the process ends


@cache
def _commands(compiler: str) -> dict[str, Any]:
    """What CMake would run in a release build, by the name of the kernel file."""
    folder = Path(_folder().name) / compiler
    options = [f"-DCMAKE_CXX_COMPILER={COMPILERS[compiler]}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    options += ["-DCMAKE_BUILD_TYPE=Release", "-DSCN_FX_PYTHON=OFF", "-DSCN_FX_CUDA=off"]
    _run([find_cmake(), "-S", str(ROOT), "-B", str(folder), *options], ROOT)
    entries = json.loads((folder / "compile_commands.json").read_text(encoding="utf-8"))
    return {Path(entry["file"]).name: entry for entry in entries if "/cpu/kernels/" in entry["file"]}


@cache
def compiled(compiler: str, file: str) -> tuple[Function, ...]:
    """The functions that one of `COMPILERS` makes of a file in scn_fx/csrc/cpu/kernels."""
    entry = _commands(compiler)[file]
    made = Path(_folder().name) / f"{compiler}-{file}.o"
    command = shlex.split(entry["command"])
    command[command.index("-o") + 1] = str(made)
    _run(command, Path(entry["directory"]))
    return tuple(functions(made))
