# SPDX-License-Identifier: Apache-2.0
"""Two processes calibrate together: the ranges of one, and clear errors where one of them fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import quant
from tests.quant.graphs import frame, residual

ROOT = Path(__file__).parents[2]

# Each process goes through all cases, so that torch is imported twice and no more.
SCRIPT = """
import os, sys
import torch, quant
from scn_fx.errors import ScnError
from tests.quant.graphs import frame, residual

rank, cache = int(os.environ["RANK"]), sys.argv[1]
torch.distributed.init_process_group("gloo")
frames = [frame(seed, scale=1 + seed) for seed in range(9)]

def attempt(name, *arguments, **options):
    try:
        result = quant.calibrate(*arguments, progress=False, **options)
        values = [amax.hex() for r in result.ranges.values() for amax in (*r.inputs, *(r.weight or ()))]
        print(rank, name, result.frames, *values)
    except ScnError as error:
        print(rank, name, "error", str(error).replace(chr(10), " "))

graph = residual()
attempt("sharded", graph, frames, shard=True, cache=cache)
print(rank, "files", *sorted(os.listdir(os.path.dirname(cache))))
attempt("own", residual(), frames[rank::2], method="percentile")
attempt("differs", residual(rank), frames, shard=True)
bad = [(torch.full_like(f, torch.nan), i) if n == 7 else (f, i) for n, (f, i) in enumerate(frames)]
attempt("fails", residual(), bad, shard=True, cache=cache)
print(rank, "kept", *sorted(os.listdir(os.path.dirname(cache))))
attempt("resumed", residual(), frames, shard=True, cache=cache, resume=True)
sys.stdout.flush()

def dying():
    yield from frames[rank::2]
    if rank == 1:
        os._exit(7)

attempt("alone", residual(), dying(), cache=cache)
sys.stdout.flush()
os._exit(0)
"""


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_processes(tmp_path: Path) -> None:
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2",
              "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # fmt: skip
    cache = tmp_path / "c.json"
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(cache)],
            env={**common, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=300) for process in started]
    lines = {
        tuple(line.split(" ", 2)[:2]): line.split(" ", 2)[2]
        for out, _ in printed
        for line in out.splitlines()
    }
    assert ("0", "alone") in lines, printed
    frames = [frame(seed, scale=1 + seed) for seed in range(9)]
    for name, method in (("sharded", "mse"), ("own", "percentile"), ("resumed", "mse")):
        ranges = quant.calibrate(residual(), frames, method=method).ranges.values()
        values = [amax.hex() for found in ranges for amax in (*found.inputs, *(found.weight or ()))]
        expected = " ".join(["9", *values])
        assert lines["0", name] == lines["1", name] == expected
    # Rank 1 may look before rank 0 has removed its own file.
    assert lines["0", "files"].split()[0] == "c.json"
    assert "Rank 0 and rank 1 calibrate different things: graph differ" in lines["0", "differs"]
    assert "Frame 7 (counted from 0): features holds NaN" in lines["1", "fails"]
    assert "The 3 frames that were counted before are kept" in lines["1", "fails"]
    assert "1 of 2 processes failed: rank 1: NonFiniteError: Frame 7" in lines["0", "fails"]
    assert "The 5 frames that were counted before are kept" in lines["0", "fails"]
    assert {"c.json.rank0", "c.json.rank1"} & set(lines["0", "kept"].split() + lines["1", "kept"].split())
    assert "has died or does not answer (this is rank 0 of 2)" in lines["0", "alone"]
    assert "The 5 frames that were counted before are kept" in lines["0", "alone"]
    # What was counted is kept, and the cache of before is still there.
    quant.load_cache(residual(), cache)
    assert (tmp_path / "c.json.rank0").exists()
    assert started[1].returncode == 7
