# SPDX-License-Identifier: Apache-2.0
"""The JSON file of a calibration: its head, which says what made it, and how it is read.

Format version 2: one object with `format`, `version`, `tool` (name and version that wrote it), `fingerprint`
(of the graph before any change of weights, see `quant.changes`), `fingerprints` (what they cover: 2 since
kernel maps hold the geometry, absent before), where known `model` (name or import path),
`checkpoint` (`file` and `sha256`, or null for none) and `grid`; and

- of a finished calibration `method`, `frames` and `layers`: for each layer name its `kind`, `precision`,
  `output_precision` and, if it has ranges, `input_dynamic_range` and `weight_dynamic_ranges` or
  `input0_dynamic_range` and `input1_dynamic_range` (float32 values, written with enough digits to be read
  back unchanged); and `changes`: for each convolution whose float16 numbers were changed, its `weight` and
  `bias` as arrays (see `quant.encoding`);
- `state`: what the frames have shown so far, from which calibration goes on (see `quant.kept_state`).

Version 1 has neither `changes` nor `state`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scn_fx import __version__
from scn_fx.errors import CalibrationError
from scn_fx.files.json_text import TextError, parse_json
from scn_fx.files.reading import FileKind, read_file
from scn_fx.quant.changes import original_fingerprint
from scn_fx.quant.provenance import cause_of_difference, provenance

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["check_graph", "head", "read_content", "require_result"]

_CACHE_FILE = FileKind(CalibrationError, 256 << 20, "a calibration cache", pipes=True)
"""CenterPoint's ranges are 60 KB, its histograms 1 MB, all its weights 7 MB."""
FORMAT = "scn-fx calibration cache"
VERSIONS = (1, 2)
FINGERPRINTS = 2


def head(graph: GraphModule) -> dict[str, Any]:
    """What stands first in a file of this graph."""
    return {
        "format": FORMAT,
        "version": VERSIONS[-1],
        "tool": f"scn-fx {__version__}",
        "fingerprint": original_fingerprint(graph),
        "fingerprints": FINGERPRINTS,
        **provenance(graph),
    }


def read_content(path: Path) -> dict[str, Any]:
    """The object in a cache file, its head checked.

    Raises CalibrationError if the file is missing, truncated, no calibration cache, or of another version.
    """
    data = read_file(path, _CACHE_FILE)
    try:
        content = parse_json(data)
    except TextError as error:
        raise CalibrationError(
            f"{path} is no complete JSON file ({error}). It may be truncated; calibrate anew."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CalibrationError(f"{path} is JSON, but not a {FORMAT} (its 'format' should say so).")
    if type(content.get("version")) is not int or content["version"] not in VERSIONS:
        raise CalibrationError(
            f"{path} has format version {str(content.get('version'))[:20]}; this version of scn-fx reads "
            f"{' and '.join(map(str, VERSIONS))}. "
            "Calibrate anew, or use the version that wrote it "
            f"({str(content.get('tool'))[:40]})."
        )
    _require(content, {"fingerprint": str, "tool": str}, path)
    return content


def require_result(content: dict[str, Any], path: Path) -> None:
    """CalibrationError unless the content is that of a finished calibration."""
    if "state" in content and "layers" not in content:
        counted = content["state"].get("counted") if isinstance(content["state"], dict) else None
        raise CalibrationError(
            f"{path} holds a calibration that was not finished (after {str(counted)[:20]} frames). Go on "
            "with quant.calibrate(..., cache=..., resume=True) or --resume."
        )
    _require(content, {"method": str, "frames": int, "layers": dict}, path)


def check_graph(content: dict[str, Any], graph: GraphModule, path: Path) -> None:
    """CalibrationError unless the file was made from this graph, or from what it was before its changes."""
    own = original_fingerprint(graph)
    if content["fingerprint"] != own and content.get("fingerprints") != FINGERPRINTS:
        raise CalibrationError(
            f"{path} was written by another version of scn-fx ({str(content['tool'])[:40]}), whose "
            "fingerprints of graphs are others: whether it belongs to this graph cannot be told. Calibrate "
            "anew."
        )
    if content["fingerprint"] != own:
        raise CalibrationError(
            f"{path} belongs to another graph: its fingerprint is {str(content['fingerprint'])[:12]}..., "
            f"this graph's is {own[:12]}... {cause_of_difference(content, provenance(graph))}"
        )


def _require(content: dict[str, Any], kinds: dict[str, type], path: Path) -> None:
    wrong = [key for key, kind in kinds.items() if type(content.get(key)) is not kind]  # True is no number
    if wrong:
        raise CalibrationError(
            f"{path} lacks {', '.join(wrong)} or holds the wrong kind of value there; calibrate anew."
        )
