# SPDX-License-Identifier: Apache-2.0
"""Settings files of the commands: what a TOML, YAML or JSON file holds, as one mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scn_fx.errors import ArgumentError, MissingPackageError
from scn_fx.files.json_text import TextError, parse_json
from scn_fx.files.reading import FileKind, read_file

__all__ = ["read_mapping"]

_SETTINGS = FileKind(ArgumentError, 1 << 20, "a settings file")


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a `.toml`, `.yaml`, `.yml` or `.json` file.

    Raises ArgumentError for no file, one of another name, or text that is none; MissingPackageError for TOML
    before Python 3.11 without tomli, and YAML without PyYAML.
    """
    kinds = {".toml": ("TOML", _toml), ".yaml": ("YAML", _yaml), ".yml": ("YAML", _yaml)}
    kinds[".json"] = ("JSON", parse_json)
    kind, parse = kinds.get(path.suffix.lower(), ("", None))
    if parse is None:
        raise ArgumentError(f"{path}: expected settings in a file named *.toml, *.yaml, *.yml or *.json.")
    try:
        content = parse(read_file(path, _SETTINGS))
    except TextError as error:
        reason = " ".join(str(error).split())
        raise ArgumentError(f"{path}: expected a {kind} file, got text that is none: {reason}.") from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise ArgumentError(f"{path}: expected names with values, got {type(content).__name__}.")
    return dict(content)


def _toml(data: bytes) -> Any:
    try:
        from scn_fx.files.toml_text import parse_toml
    except ModuleNotFoundError as error:
        raise MissingPackageError.of("tomli", "cli", "A settings file in TOML") from error
    return parse_toml(data)


def _yaml(data: bytes) -> Any:
    try:
        from scn_fx.files.yaml_text import parse_yaml
    except ModuleNotFoundError as error:
        raise MissingPackageError.of("pyyaml", "cli", "A settings file in YAML") from error
    return parse_yaml(data)
