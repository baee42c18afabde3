# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks models`: which networks pass every stage, and what refuses the others."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.models.stages import Result
from benchmarks.models.table import refusals, summary, table, write_part
from benchmarks.models.zoo import zoo_results
from scn_fx.errors import ScnError
from scn_fx.files.atomic import write_file

__all__ = ["main"]


def _results(given: argparse.Namespace) -> Iterator[Result]:
    only = tuple(given.only)
    if given.originals:
        from benchmarks.models.originals.run import original_results

        yield from original_results(given.originals, only, voxels=given.voxels, cuda=given.cuda)
    else:
        sizes = {"published": not given.small, "voxels": given.voxels}
        yield from zoo_results(only, cuda=given.cuda, **sizes)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a network that should pass does not, or after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks models", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--originals", type=Path, metavar="FOLDER", help="published files: FOLDER/owner+name")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one network; repeatable")
    parser.add_argument("--small", action="store_true", help="our definitions in small sizes")
    parser.add_argument("--voxels", type=int, default=1500, help="of the frames, about")
    parser.add_argument("--cuda", action="store_true", help="run the engine on a GPU as well")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="update its tables (docs/reference/models.md)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every result there as well")
    given = parser.parse_args(arguments)
    results = []
    try:
        for result in _results(given):
            results.append(result)
            word = "ok" if result.ok else f"refused by {result.failed}: {result.message}"
            print(f"{result.network} {result.output!r}: {word}", file=sys.stderr, flush=True)
        parts = [part for part in (summary(results), table(results), refusals(results)) if part]
        if given.json:
            write_file(given.json, json.dumps([r.to_dict() for r in results], indent=1) + "\n")
        if given.page:
            write_part(given.page, "originals" if given.originals else "zoo", "\n\n".join(parts))
    except (ScnError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(parts))
    return int(any(not (result.ok or result.outside) for result in results))


if __name__ == "__main__":
    sys.exit(main())
