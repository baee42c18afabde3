# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.fuzz --minutes 10`: fuzzes every target on all processors, and says how far it came.

It needs Clang (libFuzzer) and CMake. Each target starts from its seeds and from what earlier runs kept in the
build folder. An input that crashes, hangs, leaks or takes too much memory goes to tests/fuzz/found, where the
tests replay it; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.seeds import CORPUS, TARGETS

ROOT = Path(__file__).parents[2]
FOUND = Path(__file__).with_name("found")
FILES = "tests.fuzz.file_mutations"
"""The Python file readers' mutator: it takes the minutes that SHARES leaves."""
SHARES = {"onnx": 0.3, "network": 0.3, "maps": 0.1, "operators": 0.1, "half": 0.02, "plan": 0.1}
LONGEST = {"onnx": 8192, "network": 1024, "maps": 512, "operators": 512, "half": 512, "plan": 1024}
"""Bytes of an input."""
LIMITS = ["-timeout=10", "-rss_limit_mb=1024", "-malloc_limit_mb=512"]


@dataclass
class Report:
    """What a target did: executions, coverage (edges and libFuzzer's features), and its tally."""

    target: str
    inputs: int
    coverage: int
    features: int
    read: int
    loaded: int
    frames: int
    refused: int
    found: list[str]

    def line(self) -> str:
        share = f"{self.loaded / self.inputs:8.1%}" if self.read and self.inputs else " " * 8
        return (
            f"{self.target:10} {self.inputs:12,} {self.coverage:8,} {self.features:9,} {share} "
            f"{self.frames:12,} {self.refused:10,} {len(self.found):6}"
        )


def build(folder: Path) -> None:
    """Build the targets with Clang, with ASan and UBSan."""
    compiler = os.environ.get("SCN_FX_CLANG", "clang++")
    if shutil.which(compiler) is None:
        raise SystemExit(
            f"Fuzzing needs Clang, there is no {compiler}. Install it, or name it in SCN_FX_CLANG."
        )
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if cmake is None:
        raise SystemExit("Fuzzing needs CMake, which the extra 'test' brings: pip install '.[test]'.")
    options = ["-DSCN_FX_PYTHON=OFF", "-DSCN_FX_CUDA=off", "-DSCN_FX_FUZZ=ON", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (
        [cmake, "-S", str(ROOT), "-B", str(folder), f"-DCMAKE_CXX_COMPILER={compiler}", *options],
        [cmake, "--build", str(folder), "--parallel", str(os.cpu_count())],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n{done.stderr}")


def fuzz(target: str, folder: Path, seconds: int, jobs: int) -> Report:
    """Run one target; its inputs are kept in the build folder for the next run."""
    corpus, found, tally = folder / "corpus" / target, FOUND / target, folder / f"tally_{target}"
    for path in (corpus, found):
        path.mkdir(parents=True, exist_ok=True)
    tally.unlink(missing_ok=True)
    known = set(found.iterdir())
    command = [
        str(folder / f"fuzz_{target}"), str(corpus), str(CORPUS / target), f"-max_total_time={seconds}",
        f"-fork={jobs}", "-ignore_crashes=1", "-ignore_ooms=1", "-ignore_timeouts=1", *LIMITS,
        f"-max_len={LONGEST[target]}", "-len_control=0", f"-artifact_prefix={found}/",
    ]  # fmt: skip
    with open(folder / f"log_{target}", "w+", encoding="utf-8", errors="replace") as log:
        subprocess.run(command, stdout=log, stderr=log, env={**os.environ, "SCN_FX_FUZZ_TALLY": str(tally)})
        log.seek(0)
        progress = re.findall(r"cov: (\d+) ft: (\d+)", log.read())
    for path in found.glob("slow-unit-*"):
        path.unlink()  # slow, but not too slow
    lines = tally.read_text(encoding="utf-8").splitlines() if tally.exists() else []
    inputs, read, loaded, frames, refused = (
        sum(int(line.split()[2 * i + 2]) for line in lines) for i in range(5)
    )
    coverage, features = map(int, progress[-1]) if progress else (0, 0)
    new = sorted(path.name for path in set(found.iterdir()) - known)
    return Report(target, inputs, coverage, features, read, loaded, frames, refused, new)


def main() -> int:
    """Fuzz; 0 if nothing was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together (default: 10)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; repeatable")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes (default: all processors)"
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz", help="build folder")
    given = parser.parse_args()
    build(given.build)
    targets = given.target or list(TARGETS)
    files = not given.target and importlib.util.find_spec(FILES) is not None
    total = sum(SHARES[target] for target in targets) + (0.18 if files else 0)
    print("target           inputs coverage  features   loaded       frames    refused  found")
    reports = []
    for target in targets:
        seconds = max(5, round(60 * given.minutes * SHARES[target] / total))
        reports.append(fuzz(target, given.build, seconds, given.jobs))
        print(reports[-1].line(), flush=True)
    wrong = sum(len(report.found) for report in reports)
    for report in reports:
        for name in report.found:
            print(f"found: {FOUND.relative_to(ROOT) / report.target / name}")
    if files:
        minutes = given.minutes * 0.18 / total
        wrong += subprocess.run(
            [sys.executable, "-m", FILES, "--minutes", f"{minutes:.2f}"], cwd=ROOT
        ).returncode
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
