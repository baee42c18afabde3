# SPDX-License-Identifier: Apache-2.0
"""`--settings FILE`: options of several commands in one file: model, weights and grid are named once.

At the top of the file stand the names that several commands share (`SHARED`); a table by a command's name
holds options of that command alone. What the command line says as well goes before the file.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from scn_fx.errors import ArgumentError
from scn_fx.files.settings_files import read_mapping
from scn_fx.importing import is_import_path

__all__ = ["COMMANDS", "SHARED", "file_or_onnx", "onnx_of_settings", "settings_option", "settings_path"]

SHARED = (
    *("model", "checkpoint", "checkpoint-prefix", "checkpoint-layout", "model-output", "native"),
    *("grid", "frames", "format", "cache", "onnx"),
)
"""What may stand at the top of a file. `cache` and `onnx` are files that one command writes, others read."""

COMMANDS = ("calibrate", "sensitivity", "export", "retrofit", "quantize", "run", "compare", "report")
"""The commands that read such a file; `demo` and `bench` have networks of their own."""

_WRITES = {"calibrate": "cache", "export": "onnx", "retrofit": "onnx", "quantize": "onnx"}
"""What `--output` of a command is called at the top of a file."""
_KEY = "scn_fx.settings"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def settings_option(
    name: str, also: Mapping[str, Mapping[str, str]] | None = None
) -> Callable[[_Command], _Command]:
    """Adds `--settings` to the command `name`.

    `also` are tables of other commands that it reads too: for each the options that it takes from there, by
    the name that they have here.
    """

    def apply(ctx: click.Context, option: click.Parameter, path: Path | None) -> None:
        if path is not None and not ctx.resilient_parsing:
            content = _checked(read_mapping(path), path)
            ctx.meta[_KEY] = (path, content)
            ctx.default_map = _defaults(ctx, name, path, content, also or {})

    return click.option(
        "--settings",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=apply,
        help="TOML, YAML or JSON file with options of this and other commands; the command line goes first.",
    )


def settings_path(ctx: click.Context) -> Path | None:
    """The settings file that was given; None without one."""
    found: tuple[Path, Any] | None = ctx.meta.get(_KEY)
    return None if found is None else found[0]


def onnx_of_settings(ctx: click.Context) -> Path | None:
    """The file that the settings name as `onnx`; None where they do not, or there are none."""
    found: tuple[Path, dict[str, Any]] | None = ctx.meta.get(_KEY)
    if found is None or "onnx" not in found[1]:
        return None
    return Path(_beside(found[0], str(found[1]["onnx"])))


def file_or_onnx(ctx: click.Context, file: Path | None) -> Path:
    """The argument FILE of a command, or else what the settings name as `onnx`; UsageError without either."""
    found = file or onnx_of_settings(ctx)
    if found is None:
        raise click.UsageError(
            "Missing argument 'FILE': name the ONNX file, or --settings that name it as onnx.", ctx
        )
    return found


def _checked(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content with hyphens in its names, if these are names that a settings file has."""
    found = {key.replace("_", "-"): value for key, value in content.items()}
    for key, value in found.items():
        if key in COMMANDS:
            if not isinstance(value, Mapping):
                raise ArgumentError(
                    f"{path}: expected {key} to be a table of options ([{key}]), got {value!r}."
                )
        elif key not in SHARED:
            raise ArgumentError(
                f"{path}: {_unknown(key, (*SHARED, *COMMANDS))} At the top stand {', '.join(SHARED)}; "
                f"options of one command stand in its table ({', '.join(f'[{name}]' for name in COMMANDS)})."
            )
    return found


def _defaults(
    ctx: click.Context,
    name: str,
    path: Path,
    content: dict[str, Any],
    also: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Values of the command's parameters, by parameter name."""
    options = {_spelling(p): p for p in ctx.command.params if isinstance(p, click.Option)}
    options.pop("settings", None)
    output = _WRITES.get(name)
    shared = {("output" if key == output else key): value for key, value in content.items() if key in SHARED}
    values = {key: (value, "") for key, value in shared.items() if key in options}
    for table, names in also.items():
        for key, value in _table(content, table).items():
            if key in names:
                values[names[key]] = (value, f"[{table}] ")
    for key, value in _table(content, name).items():
        if key not in options:
            raise ArgumentError(f"{path}: in [{name}], {_unknown(key, tuple(options))}")
        values[key] = (value, f"[{name}] ")
    found: dict[str, Any] = {}
    for key, (value, where) in values.items():
        option = options[key]
        assert option.name is not None
        found[option.name] = _converted(ctx, option, value, path, f"{path}: {where}{key}")
    return found


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {str(key).replace("_", "-"): value for key, value in content.get(name, {}).items()}


def _spelling(option: click.Option) -> str:
    return next(word for word in option.opts if word.startswith("--"))[2:]


def _unknown(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"there is no option {key[:60]!r}.{f' Did you mean {close[0]!r}?' if close else ''}"


def _converted(ctx: click.Context, option: click.Option, value: Any, path: Path, where: str) -> Any:
    """A value as the command line would give it; ArgumentError names the file if it does not serve."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise ArgumentError(f"{where}: expected true or false, got {value!r}.")
        return value
    if isinstance(value, Mapping) and option.multiple:  # [calibrate.precision] "conv1.*" = "fp16"
        value = [f"{key}={entry}" for key, entry in value.items()]
    if isinstance(value, list) and option.name == "grid":
        value = ",".join(map(str, value))
    several = value if isinstance(value, list) and option.multiple else [value]
    if any(isinstance(entry, bool | list | Mapping) or entry is None for entry in several):
        raise ArgumentError(
            f"{where}: expected {'texts' if option.multiple else 'a text or number'}, got {value!r}."
        )
    texts = [_placed(option, str(entry), path) for entry in several]
    try:
        for text in texts:
            option.type.convert(text, option, ctx)
    except click.BadParameter as error:
        raise ArgumentError(f"{where}: {error.message}") from error
    return texts if option.multiple else texts[0]


def _placed(option: click.Option, text: str, path: Path) -> str:
    """File names are relative to the settings file."""
    if isinstance(option.type, click.Path):
        beside = _beside(path, text)
        code = option.name == "frames" and is_import_path(text) and not os.path.exists(beside)
        return text if code else beside
    if option.name == "grid" and os.path.isfile(_beside(path, text)):
        return _beside(path, text)
    return text


def _beside(path: Path, text: str) -> str:
    return os.path.normpath(os.path.join(path.parent, text))
