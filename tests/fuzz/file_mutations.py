# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.fuzz.file_mutations --minutes N [--seed S]`: mutated files for all our readers.

Whatever a file holds, a reader gives a result or one of our errors, in seconds and within some memory.
Everything else is a finding: it is printed, and its file saved. Where a format has checksums (.npz,
torch.save), bits that flipped must be noticed or change nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

from scn_fx.errors import ScnError
from tests.fuzz.file_readers import READERS, Reader, digest, readers
from tests.fuzz.mutators import DAMAGE, splice

__all__ = ["Outcome", "limits", "run", "try_file"]

_SECONDS = 20
"""For one file of some kilobytes; the slowest takes a tenth."""
_MEMORY = 6 << 30
"""Address space beyond what the process has; a reader that asks for more gets a MemoryError, a finding."""


class Slow(BaseException):
    """A reader has taken too long. No Exception: readers translate those of libraries."""


@dataclass
class Outcome:
    """What came of a number of files."""

    executions: int = 0
    accepted: int = 0
    findings: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Limits time and memory of what is read inside; Linux alone counts the latter."""

    def alarm(number: int, frame: FrameType | None) -> None:
        raise Slow

    before, space = signal.signal(signal.SIGALRM, alarm), resource.getrlimit(resource.RLIMIT_AS)
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, space[1]))
    except OSError:
        pass
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, space)
        signal.signal(signal.SIGALRM, before)


def try_file(reader: Reader, data: bytes, path: Path, original: str | None = None) -> tuple[bool, str]:
    """Whether `reader` takes a file of `data` (written to `path`), and the name of our error or the finding.

    A finding begins with "!". `original` is the digest that a damaged file must have if it is taken.
    """
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        found = reader.read(path)
    except ScnError as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = str(error)
        ours = path.name in text or reader.name == "checkpoint-ranges"
        return False, type(error).__name__ if ours else f"! the error does not name the file: {text[:200]}"
    except Slow:
        return False, f"! more than {_SECONDS} s"
    except Exception as error:
        return False, f"! {type(error).__module__}.{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if original is not None and digest(found) != original:
        return True, "! damage went unnoticed: the result is another"
    return True, ""


def mutated(reader: Reader, rng: np.random.Generator) -> tuple[bytes, int | None]:
    """A mutated file of a reader, and the number of its seed if it is merely damaged."""
    number = int(rng.integers(len(reader.seeds)))
    data = reader.seeds[number]
    kind = rng.random()
    if reader.checked and kind < 0.3:
        return DAMAGE[rng.integers(len(DAMAGE))](rng, data), number
    if kind > 0.95:
        return splice(rng, data, reader.seeds), None
    return reader.mutators[rng.integers(len(reader.mutators))](rng, data), None


def run(reader: Reader, seed: int, start: int, count: int, folder: Path, save: Path | None = None) -> Outcome:
    """Executions `start` to `start + count` of one reader; each follows from `seed` and its number alone."""
    outcome = Outcome()
    path = folder / f"mutated{reader.suffix}"
    originals = []
    if reader.checked:
        for data in reader.seeds:
            path.write_bytes(data)
            originals.append(digest(reader.read(path)))
    for number in range(start, start + count):
        rng = np.random.default_rng([seed, READERS.index(reader.name), number])
        data, damaged = mutated(reader, rng)
        taken, text = try_file(reader, data, path, None if damaged is None else originals[damaged])
        outcome.executions += 1
        outcome.accepted += taken
        if text.startswith("!"):
            outcome.findings.append(f"{reader.name}, --seed {seed}, execution {number}: {text[2:]}")
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
                (save / f"{reader.name}-{seed}-{number}{reader.suffix}").write_bytes(data)
        elif text:
            outcome.errors[text] += 1
    return outcome


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.file_mutations", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="wall time for all readers (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations (default: 0)")
    parser.add_argument("--reader", choices=READERS, action="append", help="only this reader; repeatable")
    parser.add_argument("--save", type=Path, default=Path("build/fuzz/files"), help="where found files go")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [r for r in readers(Path(folder)) if r.name in (given.reader or READERS)]
        totals = {reader.name: Outcome() for reader in chosen}
        end = time.monotonic() + 60 * given.minutes
        with limits():
            while time.monotonic() < end:
                for reader in chosen:
                    total = totals[reader.name]
                    until = min(time.monotonic() + 2.0, end)
                    while time.monotonic() < until:
                        part = run(reader, given.seed, total.executions, 50, Path(folder), given.save)
                        total.executions += part.executions
                        total.accepted += part.accepted
                        total.findings += part.findings
                        total.errors += part.errors
                        for text in part.findings:
                            print(f"FOUND {text}", flush=True)
    print(f"{'reader':<18} {'executions':>10} {'accepted':>9} {'findings':>9}  errors")
    for name, total in totals.items():
        share = total.accepted / max(total.executions, 1)
        errors = ", ".join(f"{error} {count}" for error, count in total.errors.most_common())
        print(f"{name:<18} {total.executions:>10} {share:>9.1%} {len(total.findings):>9}  {errors}")
    executions = sum(total.executions for total in totals.values())
    findings = sum(len(total.findings) for total in totals.values())
    print(f"{'all':<18} {executions:>10} {'':>9} {findings:>9}")
    return int(any(total.findings for total in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
