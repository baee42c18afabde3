# SPDX-License-Identifier: Apache-2.0
"""Writes scn_fx/_core.pyi from the compiled module, by nanobind's stubgen: `make stub`, after new bindings.

`--check` compares instead, and says what to do if they differ. Needs nanobind, and ruff to lay it out.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUB = ROOT / "scn_fx" / "_core.pyi"
LICENCE = "# SPDX-License-Identifier: Apache-2.0\n"


def generated() -> str:
    """What stubgen says of the module that this Python imports."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "_core.pyi"
        command = [sys.executable, "-m", "nanobind.stubgen", "--quiet", "-m", "scn_fx._core", "-o", str(out)]
        subprocess.run(command, check=True, cwd=ROOT)
        return LICENCE + out.read_text(encoding="utf-8")


def meaning(text: str) -> list[str]:
    """The statements of a stub, whatever their layout; imports are in no order."""
    statements = ast.parse(text).body
    imports = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    rest = [node for node in statements if node not in imports]
    return sorted(map(ast.unparse, imports)) + [ast.unparse(node) for node in rest]


def main() -> None:
    made = generated()
    if "--check" not in sys.argv[1:]:
        STUB.write_text(made, encoding="utf-8")
        for words in (("format",), ("check", "--fix", "--select", "I")):
            subprocess.run([sys.executable, "-m", "ruff", *words, "--quiet", str(STUB)], check=True)
    differing = set(meaning(made)) ^ set(meaning(STUB.read_text(encoding="utf-8")))
    if differing:
        what = "\n".join(sorted(differing))
        sys.exit(f"scn_fx/_core.pyi is not what the compiled module has. Run `make ext stub`.\n{what}")


if __name__ == "__main__":
    main()
