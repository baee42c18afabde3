# SPDX-License-Identifier: Apache-2.0
"""`scn-fx env`: what is installed, and what this machine can run."""

from __future__ import annotations

import platform
from typing import Any

import click

from scn_fx import __version__
from scn_fx.bench.host import SPCONV, cpu_name, installed, processors
from scn_fx.cli.output import json_option, print_json, print_table, table

__all__ = ["command", "cuda_rows", "cuda_version", "environment"]

_PACKAGES: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("numpy", ("numpy",), "", "everything"),
    ("torch", ("torch",), "torch", "capture, calibration, export"),
    ("spconv", SPCONV, "spconv-cpu", "capture of spconv models"),
    ("nvidia-modelopt", ("nvidia-modelopt",), "bridge", "models that modelopt has quantised"),
    ("onnx", ("onnx",), "export", "export"),
    ("onnxscript", ("onnxscript",), "export", "export"),
    ("click", ("click",), "cli", "the command line"),
    ("rich", ("rich",), "cli", "the command line"),
    ("matplotlib", ("matplotlib",), "plot", "pictures, charts and reports"),
)


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show what is installed and what this machine can run."""
    found = environment()
    if as_json:
        print_json(found)
        return
    made = table("Packages", ("package", "version", "used by"))
    for entry in found["packages"]:
        text = entry["version"] or f"missing: pip install 'scn-fx[{entry['extra']}]'"
        made.add_row(entry["package"], text, entry["purpose"])
    print_table(made)
    made = table("Machine", ("", " "))
    made.show_header = False
    for key in ("scn_fx", "python", "platform", "cpu", "processors", "engine", "instruction_sets"):
        made.add_row(key.replace("_", " ").replace("scn fx", "scn-fx"), str(found[key]))
    for name, text in cuda_rows(found["cuda"]):
        made.add_row(name, text)
    print_table(made)


def environment() -> dict[str, Any]:
    """Versions, processors and backends as plain data."""
    try:
        from scn_fx import _core

        features: dict[str, Any] = _core.cpu_features()
        engine, sets = f"CPU, {features['isa']}", ", ".join(features["supported"])
        cuda: dict[str, Any] = _core.cuda_info()
    except ImportError as error:
        engine, sets = f"missing: {error}. Install scn-fx with pip, or run `make ext`", "none"
        cuda = {"built": False, "devices": [], "problem": "The engine is missing."}
    return {
        "scn_fx": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "processors": processors(),
        "engine": engine,
        "instruction_sets": sets,
        "cuda": cuda,
        "packages": [
            {"package": name, "version": _version(names), "extra": extra or None, "purpose": purpose}
            for name, names, extra, purpose in _PACKAGES
        ],
    }


def cuda_rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    """What `_core.cuda_info` says, as rows of a table: the build, the driver, each device, what is wrong."""
    rows = []
    if info["built"]:
        ptx = f", PTX for {info['ptx']} and newer" if info["ptx"] else ""
        built = f"CUDA {cuda_version(info['compiler'])}, code for {', '.join(info['architectures'])}{ptx}"
        driver = f"for CUDA {cuda_version(info['driver'])}" if info["driver"] else "none"
        rows += [("cuda", built), ("cuda driver", driver)]
        for number, device in enumerate(info["devices"]):
            memory = f"{device['memory'] / 2**30:.0f} GiB, {device['multiprocessors']} multiprocessors"
            text = f"{device['name']}, architecture {device['architecture']}, {memory}: "
            rows.append(
                (f"cuda:{number}", text + ("usable" if device["fits"] else "no code for it in this build"))
            )
    if info["problem"]:
        rows.append(("no cuda" if info["built"] else "cuda", info["problem"]))
    return rows


def cuda_version(number: int) -> str:
    """13.0 from 13000."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _version(names: tuple[str, ...]) -> str | None:
    found = installed(names)
    if found is None:
        return None
    name, number = found
    return number if name == names[0] else f"{number} ({name})"
