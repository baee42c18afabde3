# SPDX-License-Identifier: Apache-2.0
"""The developer's loop: the compiled module is as new as its sources, and recipes name files that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from scn_fx import _core

ROOT = Path(__file__).parents[1]
CUDA = (".cu", ".cuh")


def compiled_sources() -> Iterator[Path]:
    """C++ and CUDA files of this build. (A change of a build file need not change the module.)"""
    for path in (ROOT / "scn_fx" / "csrc").rglob("*"):
        belongs = path.suffix in (".h", ".cpp") and "cuda" not in path.relative_to(ROOT).parts
        if belongs or (_core.cuda_info()["built"] and path.suffix in (".h", ".cpp", *CUDA)):
            yield path


def test_the_loaded_module_is_not_older_than_its_sources() -> None:
    newest = max(compiled_sources(), key=lambda path: path.stat().st_mtime)
    loaded = Path(_core.__file__)
    assert newest.stat().st_mtime <= loaded.stat().st_mtime, (
        f"{newest.relative_to(ROOT)} is newer than {loaded}: tests would try an old build. Run `make ext`."
    )


def test_the_files_of_recipes_exist() -> None:
    recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Recipes")[2]
    named = re.findall(r"^\| `([^`]+)` \|", recipes, re.MULTILINE)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).is_file()] == []
