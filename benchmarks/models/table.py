# SPDX-License-Identifier: Apache-2.0
"""The table of results in Markdown, and the page that holds it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.models.stages import ON_PURPOSE, STAGES, Result
from scn_fx.files.atomic import write_file

__all__ = ["COLUMNS", "refusals", "row", "summary", "table", "write_part"]

COLUMNS = (
    "network", "output", "convolutions / additions", *STAGES, "CUDA", "dialect", "from spconv",
)  # fmt: skip
_NAMES = {"capture": "capture", "dynamo": "export, dynamo", "torchscript": "export, TorchScript"}


def row(result: Result) -> list[str]:
    """The cells of a result; "-" where nothing was run."""
    stages = [result.stages.get(stage, "refused" if stage == result.failed else "-") for stage in STAGES]
    if stages[-1] == "ok":
        stages[-1] = "identical"
    found = result.difference
    counts = f"{result.convolutions} / {result.additions}" if result.stages else "-"
    return [
        result.network, f"`{result.output!r}`", counts, *stages, result.cuda or "-", result.dialect or "-",
        "-" if found is None else f"{found:.0e}",
    ]  # fmt: skip


def table(results: Iterable[Result]) -> str:
    """All of them."""
    names = {"calibrate": "calibrate", "cpu": "CPU engine", **_NAMES}
    head = [names.get(column, column) for column in COLUMNS]
    lines = [head, ["---", "---", "---:", *["---"] * (len(COLUMNS) - 3)], *map(row, results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def refusals(results: Iterable[Result]) -> str:
    """For each that did not pass: the place that refused, why that may be right, the message."""
    lines = [
        f"- {result.network}, `{result.output!r}` ({result.failed}, {result.place or 'outside scn-fx'})"
        f"{f', {result.outside}' if result.outside else ''}. {result.message}"
        for result in results
        if not result.ok
    ]
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """How many passed, and why the others did not, as a sentence."""
    refused = [result for result in results if not result.ok]
    passed = f"{len(results)} pairs of network and output: {len(results) - len(refused)} pass every stage"
    if not refused:
        return f"{passed}."
    known = Counter(result.outside for result in refused if result.outside in ON_PURPOSE)
    others = Counter(result.outside or "unexpected" for result in refused if result.outside not in ON_PURPOSE)
    parts = [
        f"{sum(found.values())} {text} ({'; '.join(f'{reason}: {n}' for reason, n in found.items())})"
        for found, text in (
            (known, "end in what scn-fx leaves outside on purpose"),
            (others, "are refused for other reasons"),
        )
        if found
    ]
    return f"{passed}, {', and '.join(parts)}."


def write_part(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of a part of a page; the rest stays.

    Raises:
        ValueError: the page has no such part.
        WriteError: it cannot be written.
    """
    before = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(before):
        raise ValueError(f"{page} has no part between <!-- {name} --> and <!-- end of {name} -->.")
    write_file(page, pattern.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", before))
