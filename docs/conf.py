# SPDX-License-Identifier: Apache-2.0
"""The site of this folder: `make docs` writes it to build/docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(ROOT)]

project = "scn-fx"
author = "the scn-fx authors"
copyright = author
(release,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_click", "cpp_headers"]
# The index takes in README.md, which forges show for the folder.
exclude_patterns = ["README.md", "_ext", "scripts"]
myst_heading_anchors = 4  # as forges make them: pages link to headings by these names
highlight_language = "none"
smartquotes = False  # it makes a dash of the two hyphens of an option

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
default_role = "code"  # docstrings are Markdown's: one backtick is code

html_theme = "furo"
html_title = f"scn-fx {release}"


def sections(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Sections as "Args:" become fields. The extension napoleon would also cut texts of values at a colon."""
    if what not in ("attribute", "data", "property"):
        text = re.sub(r"\s*Args of\s+the constructor:\n+", "\n\nArgs:\n", "\n".join(lines))
        lines[:] = GoogleDocstring(text, Config(), app, what, name, of, options).lines()


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", sections)
