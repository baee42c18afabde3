# SPDX-License-Identifier: Apache-2.0
"""Every seed and every input that was ever found runs through its fuzz target, with any compiler."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import cpp_programs
from tests.fuzz.seeds import CORPUS, TARGETS, seeds

FOUND = Path(__file__).with_name("found")


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_found_inputs_do_no_harm(target: str) -> None:
    folders = [folder for folder in (CORPUS / target, FOUND / target) if folder.is_dir()]
    files = sum(len(list(folder.iterdir())) for folder in folders)
    replay = cpp_programs.program(f"replay_{target}")
    done = subprocess.run([replay, "-v", *folders], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{files} files\n"


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_what_the_script_writes(target: str) -> None:
    written = {path.name: path.read_bytes() for path in (CORPUS / target).iterdir()}
    assert written == seeds(target), "run `python -m tests.fuzz.seeds` and commit what it writes"


def test_the_corpus_is_small() -> None:
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert max(sizes) < 4096 and sum(sizes) < 300_000


def test_most_networks_among_the_seeds_load() -> None:
    """Otherwise the seeds would test how files are refused, and little else."""
    replay = cpp_programs.program("replay_onnx")
    done = subprocess.run([replay, CORPUS / "onnx"], capture_output=True, text=True)
    words = done.stderr.split()
    inputs, loaded = (int(words[words.index(word) + 1]) for word in ("inputs", "loaded"))
    meant = sum(not name.startswith("edge-") for name in seeds("onnx"))
    assert inputs == len(seeds("onnx")) and loaded > 0.9 * meant, done.stderr
