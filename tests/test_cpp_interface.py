# SPDX-License-Identifier: Apache-2.0
"""What C++ programs see: headers that stand alone, a shared library that shows nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import scn_fx
from tests import cpp_programs
from tests.cpp_programs import ROOT

INCLUDE = ROOT / "scn_fx" / "csrc" / "include"
HEADERS = sorted(path.relative_to(INCLUDE).as_posix() for path in INCLUDE.rglob("*.h"))
COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]
STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")


def _output(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_a_compiler() -> None:
    assert COMPILERS and len(HEADERS) >= 8


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_header_needs_nothing_before_it_and_no_other_folder(
    compiler: str, header: str, tmp_path: Path
) -> None:
    (tmp_path / "a.cpp").write_text(f'#include "{header}"\n#include "{header}"\n')
    _output(compiler, *STRICT, "-I", INCLUDE, tmp_path / "a.cpp")


def test_headers_name_neither_cuda_nor_each_others_insides() -> None:
    for header in HEADERS:
        included = re.findall(r'^#include [<"](.+?)[>"]', (INCLUDE / header).read_text(), re.M)
        assert all(name in HEADERS or re.fullmatch(r"[a-z]+", name) for name in included), header


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", ["run_onnx", "save_plan", "points_to_bev"])
def test_the_examples_compile_without_a_warning(compiler: str, name: str) -> None:
    _output(compiler, *STRICT, "-I", INCLUDE, ROOT / "examples" / "cpp" / f"{name}.cpp")


def test_the_shared_library_exports_public_functions_alone() -> None:
    library = cpp_programs.program("libscn_fx.so")
    text = "".join((INCLUDE / header).read_text() for header in HEADERS)
    public = set(re.findall(r"\b(\w+)\(", text))
    shown = {line.split(" ", 2)[2] for line in _output("nm", "-DC", "--defined-only", library).splitlines()}
    functions = {re.sub(r"\[abi:cxx11\]|\(.*", "", symbol) for symbol in shown}
    marks = {f"{mark} for scn::Error" for mark in ("vtable", "typeinfo", "typeinfo name")}
    special = {"scn::Engine::Engine", "scn::Engine::~Engine", "scn::Engine::operator="}
    assert marks | special <= functions
    for name in functions - marks - special:
        assert name.startswith("scn::") and name.rpartition("::")[2] in public, name
    assert {"scn::save_plan", "scn::cuda_info", "scn::Engine::run", "scn::Engine::sites_of"} <= functions


def test_the_shared_library_has_a_name_for_each_minor_version() -> None:
    library = cpp_programs.program("libscn_fx.so")
    major, minor, _ = scn_fx.__version__.split(".")
    soname = f"libscn_fx.so.{major}.{minor}" if major == "0" else f"libscn_fx.so.{major}"
    assert f"[{soname}]" in _output("readelf", "-d", library)
    assert library.resolve().name == f"libscn_fx.so.{scn_fx.__version__}"


def test_a_program_runs_on_the_shared_library(tmp_path: Path) -> None:
    """As find_package users link it, errors of the library are caught by type."""
    prefix, source = tmp_path / "prefix", tmp_path / "source"
    source.mkdir()
    cmake = cpp_programs.find_cmake()
    _output(cmake, "--install", cpp_programs.program("libscn_fx.so").parent, "--prefix", prefix)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(a LANGUAGES CXX)\nfind_package(scn_fx 0.1 REQUIRED)\n"
        "add_executable(a a.cpp)\ntarget_link_libraries(a PRIVATE scn_fx::shared)\n"
    )
    (source / "a.cpp").write_text(
        '#include <cstdio>\n#include "scn_fx/plan.h"\nint main() {\n'
        '  try { scn::Engine engine("none.plan"); }\n'
        "  catch (const scn::Error& error) { return error.kind() == scn::ErrorKind::kOnnx ? 0 : 1; }\n"
        "  return 2;\n}\n"
    )
    _output(cmake, "-S", source, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    _output(cmake, "--build", tmp_path / "build")
    _output(tmp_path / "build" / "a")
    assert "libscn_fx.so" in _output("readelf", "-d", tmp_path / "build" / "a")
