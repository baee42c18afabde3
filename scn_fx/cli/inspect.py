# SPDX-License-Identifier: Apache-2.0
"""`scn-fx inspect`: the nodes of an ONNX file with their geometry, ranges and precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scn_fx.cli.output import file_size, json_option, megabytes, print_json, print_table, table
from scn_fx.errors import OnnxError
from scn_fx.files.onnx_models import read_model
from scn_fx.operators.activations import real_activations
from scn_fx.operators.onnx_form import PRECISIONS
from scn_fx.operators.table import OPERATORS, onnx_forms
from scn_fx.quant.console import one_line

__all__ = ["command", "node_rows"]

_SHOWN = (
    "kernel_size", "stride", "padding", "dims", "output_shape", "activation", "rulebook", "output_bound",
)  # fmt: skip
_PYTHON = {"i": int, "f": float, "s": str, "ints": list, "floats": list}


def _shown_kinds() -> dict[str, type]:
    """Python types of the attributes that are shown, as the table of operators has them."""
    shown = {*_SHOWN, *PRECISIONS, *(each.attribute for spec in OPERATORS.values() for each in spec.ranges)}
    types = {name: kind for _, form in onnx_forms() for name, kind in form.types.items()}
    return {name: _PYTHON[kind] for name, kind in types.items() if name in shown}


_KINDS = _shown_kinds()
_CONVOLUTION = next(form.op_type for spec, form in onnx_forms() if spec.weighted)
_INPUT_RANGES = tuple(
    dict.fromkeys(each.attribute for spec in OPERATORS.values() for each in spec.input_ranges)
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def command(file: Path, as_json: bool) -> None:
    """Show the nodes, ranges and precisions of an ONNX FILE, or of a plan.

    Reads the file with the engine's own reader; it needs neither torch nor onnx.
    """
    found = read_model(file)
    rows = node_rows(found, str(file))
    size = file_size(file)
    if as_json:
        facts = {
            key: found[key]
            for key in ("ir_version", "producer", "opset", "metadata", "inputs", "outputs", "plan")
        }
        print_json({"file": str(file), "bytes": size, **facts, "nodes": rows})
        return
    columns = (
        "node",
        "op",
        "channels",
        "kernel",
        "stride",
        "rulebook",
        "precision",
        "input range",
        "weight range",
    )
    made = table(f"{file}", columns, right=("channels",))
    for row in rows:
        made.add_row(*map(one_line, _cells(row)))
    print_table(made)
    opsets = ", ".join(
        f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(found["opset"].items())
    )
    parameters = sum(
        _count(f"{file}: initializer {name!r}", entry["shape"])
        for name, entry in found["initializers"].items()
    )
    counts = one_line(" + ".join(f"{n} {op}" for op, n in _counts(rows).items()))
    click.echo(f"nodes       {len(rows)}: {counts}")
    click.echo(
        f"file        {megabytes(size)}, {parameters:,} parameters, opset {one_line(opsets)}, by "
        f"{one_line(found['producer'])}"
    )
    outputs = ", ".join(_outputs(found))
    click.echo(one_line(f"input       {', '.join(found['inputs'])}; output {outputs}"))
    if found["plan"]:
        plan = found["plan"]
        click.echo(
            one_line(
                f"plan        format {plan['format']} of version {plan['library']}, for {plan['kind']}, of "
                f"an ONNX file with SHA-256 {plan['onnx_sha256']}"
            )
        )
    for key, value in sorted(found["metadata"].items()):
        click.echo(one_line(f"metadata    {key} = {value}"))


def _outputs(found: dict[str, Any]) -> list[str]:
    """The outputs of a file; where there are several, with the nodes that make them."""
    names: list[str] = list(found["outputs"])
    if len(names) == 1:
        return names
    made = {value: node["name"] or value for node in found["nodes"] for value in node["outputs"]}
    return [f"{name} ({made[name]})" if made.get(name, name) != name else name for name in names]


def node_rows(found: dict[str, Any], file: str = "The file") -> list[dict[str, Any]]:
    """Plain data of each node of what the reader found; None where a node has no such attribute.

    Raises OnnxError, naming `file`, for an attribute of another type than the dialect's.
    """
    shapes = {name: entry["shape"] for name, entry in found["initializers"].items()}
    rows = []
    for node in found["nodes"]:
        attributes = node["attributes"]
        _check_kinds(f"{file}: node {node['name'] or node['op_type']!r}", attributes)
        is_convolution = node["op_type"] == _CONVOLUTION and len(node["inputs"]) > 1
        weight = shapes.get(node["inputs"][1]) if is_convolution else None
        if weight is not None and len(weight) != 5:
            weight = None  # no convolution that an engine takes; the file is shown as it is
        ranges = [attributes[name] for name in _INPUT_RANGES if name in attributes]
        weights = attributes.get("weight_dynamic_ranges") or None
        rows.append(
            {
                "name": node["name"] or next(iter(node["outputs"]), ""),
                "op_type": node["op_type"],
                "in_channels": weight[4] if weight else None,
                "out_channels": weight[0] if weight else None,
                "kernel_size": attributes.get("kernel_size"),
                "stride": attributes.get("stride"),
                "padding": attributes.get("padding"),
                "kind": _kind(attributes) if weight else None,
                "activation": attributes.get("activation"),
                "rulebook": attributes.get("rulebook"),
                "output_bound": attributes.get("output_bound"),
                "precision": attributes.get("precision"),
                "output_precision": attributes.get("output_precision"),
                "input_ranges": ranges,
                "weight_range_min": min(weights) if weights else None,
                "weight_range_max": max(weights) if weights else None,
                "dims": attributes.get("dims") or attributes.get("output_shape") if not weight else None,
            }
        )
    return rows


def _check_kinds(where: str, attributes: dict[str, Any]) -> None:
    """Attributes have the types of the dialect; a file from elsewhere may say anything."""
    for key, kind in _KINDS.items():
        if key in attributes and not isinstance(attributes[key], kind):
            wanted = "a list of numbers" if kind is list else f"of type {kind.__name__}"
            raise OnnxError(
                f"{where}: expected its attribute {key} to be {wanted}, got "
                f"{type(attributes[key]).__name__}. It is damaged, or no file for this engine: export it "
                "again."
            )


def _kind(attributes: dict[str, Any]) -> str:
    kinds = ("subm", "inverse", "transposed")
    return next((kind for kind in kinds if attributes.get(kind)), "strided")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    channels = f"{row['in_channels']} → {row['out_channels']}" if row["in_channels"] else ""
    kernel = _times(row["kernel_size"]) if row["kernel_size"] else _times(row["dims"] or [])
    stride = ("1" if set(row["stride"]) == {1} else _times(row["stride"])) if row["stride"] else ""
    op = row["op_type"]
    if row["kind"]:
        known = row["activation"] in [each.name for each in real_activations()]
        op = f"{row['kind']} conv" + (f" + {row['activation']}" if known else "")
    precision = f"{row['precision']} → {row['output_precision']}" if row["precision"] else ""
    weights = ""
    if row["weight_range_min"] is not None:
        weights = f"{row['weight_range_min']:.4g} … {row['weight_range_max']:.4g}"
    ranges = ", ".join(f"{amax:.5g}" for amax in row["input_ranges"])
    return row["name"], op, channels, kernel, stride, row["rulebook"] or "", precision, ranges, weights


def _times(numbers: list[int]) -> str:
    return "×".join(str(n) for n in numbers)  # noqa: RUF001


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["op_type"]] = counts.get(row["op_type"], 0) + 1
    return counts


def _count(where: str, shape: list[int]) -> int:
    total = 1
    for n in shape:
        total *= n
        if not 0 <= total < 1 << 62:
            raise OnnxError(f"{where} has impossible dimensions. Export the file again.")
    return total
