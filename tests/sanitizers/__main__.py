# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.sanitizers asan|ubsan|tsan|compute-sanitizer`: builds what it needs and runs the tests.

ASan and UBSan run the tests of the engine, its operators and its runtime in Python, whose module is the
instrumented one, and all C++ test programs. TSan runs the C++ programs: many callers on shared and on own
engines, failing allocations on three threads, and all seeds of the fuzz targets. compute-sanitizer runs tests
that need a GPU with the module that is installed, see `tests.sanitizers.compute`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests import instrumented
from tests.cpp_programs import ROOT
from tests.fuzz.seeds import CORPUS, TARGETS
from tests.sanitizers import compute

SANITIZERS = {"asan": "address", "ubsan": "undefined", "tsan": "thread"}
TESTS = ["tests/core", "tests/runtime", "tests/ops", "tests/fuzz", "tests/test_cpp_example.py"]
LIMITED = "not system_does_not_give and not limit_of_threads and not take_memory_for_their_results_only"
"""Not the tests that count allocations, or limit the address space, where its shadow does not fit."""
OPTIONS = {
    # Python itself leaks; what the engine leaves behind, allocation_failures and the fuzz targets look for.
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


def build(name: str) -> Path:
    """Build with the sanitizer, without the module for TSan."""
    return instrumented.build(name, f"-DSCN_FX_SANITIZE={SANITIZERS[name]}", python=name != "tsan")


def _library(name: str) -> str:
    """A runtime library of the compiler that built the module, to be loaded before Python."""
    compiler = os.environ.get("CXX", "c++")
    return subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def run_python(name: str, folder: Path, arguments: list[str]) -> int:
    """The tests in Python, with the instrumented module in every process that they start."""
    preload = [_library("libasan.so"), _library("libstdc++.so")] if name == "asan" else []
    environment = {
        **os.environ,
        **OPTIONS,
        **instrumented.environment(folder),
        "SCN_FX_EXAMPLES": "10",
        # the example is built by itself, on the instrumented library
        "CXXFLAGS": f"-fsanitize={SANITIZERS[name]}",
        "LD_PRELOAD": " ".join(preload),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or TESTS)]
    if name == "asan":
        command += ["-k", LIMITED]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def run_programs(folder: Path) -> int:
    """The C++ programs alone."""
    # networks that load, and whose frames have results
    other = re.compile(r"-frames|edge-|bound")
    networks = sorted(str(p) for p in (CORPUS / "onnx").glob("*.onnx") if not other.search(p.name))
    commands = [[str(folder / "many_threads"), "3", *networks]]
    commands += [[str(folder / "allocation_failures"), "3", *networks]]
    commands += [[str(folder / f"replay_{t}"), str(CORPUS / t)] for t in TARGETS]
    wrong = 0
    # addresses as this kernel places them may not fit TSan's map of memory
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []
    for command in commands:
        print(f"== {Path(command[0]).name}", flush=True)
        wrong += subprocess.run([*fixed, *command], env={**os.environ, **OPTIONS}).returncode != 0
    return wrong


def main() -> int:
    """Build and run; 0 if the sanitizer has nothing to say."""
    if sys.argv[1:2] == ["compute-sanitizer"]:
        return compute.run(sys.argv[2:])
    if len(sys.argv) < 2 or sys.argv[1] not in SANITIZERS:
        names = "|".join([*SANITIZERS, "compute-sanitizer"])
        raise SystemExit(f"usage: python -m tests.sanitizers {names} [pytest arguments]")
    name = sys.argv[1]
    folder = build(name)
    return run_programs(folder) if name == "tsan" else run_python(name, folder, sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
