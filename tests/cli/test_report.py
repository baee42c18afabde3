# SPDX-License-Identifier: Apache-2.0
"""`scn-fx report`: its numbers against numpy on traces, its page against a parser, and hostile names."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import scn_fx.quant as quant
from scn_fx import Engine
from scn_fx.capture import capture
from scn_fx.cli.report.ranges import RangeUse
from scn_fx.cli.report.svg import histogram
from scn_fx.detection import Detector, detect, load_detector, save_detector
from scn_fx.errors import CalibrationError
from scn_fx.exporting import export_onnx
from scn_fx.lidar import VoxelGrid, write_tensor
from scn_fx.quant import sensitivity
from scn_fx.quant.frame_files import FrameFiles
from scn_fx.runtime.file_graph import file_graph
from scn_fx.zoo import demo_frame
from tests.cli.conftest import invoke, invoke_json

Files = dict[str, Path]
VOID = {"meta", "img", "br"}
REFERENCES = {"href", "src", "xlink:href", "srcset", "action", "data", "poster"}


class Page(HTMLParser):
    """Reads a page, fails on tags that do not match, and keeps tags, references and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in REFERENCES]
        assert not any(name.startswith("on") for name, _ in attrs), attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def made(file: Path, frames: Path, folder: Path, *more: object) -> tuple[dict[str, Any], str]:
    """The facts and the page of a report."""
    target = folder / "report.html"
    facts = invoke_json("report", file, "--frames", frames, "-o", target, "--repeat", 1, *more)
    return facts, target.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(files: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    return made(files["int8"], files["frames"], tmp_path_factory.mktemp("report"), "--quiet")


def traces(file: Path, frames: Path, precision: str | None) -> list[dict[str, Any]]:
    engine = Engine(file, precision=precision)
    return [
        {"features": features.astype(np.float16), **{t.name: t.values for t in engine.trace(features, rows)}}
        for features, rows in FrameFiles.find(frames)
    ]


def test_sqnr_and_ranges_are_those_of_the_traces(files: Files, report: tuple[dict[str, Any], str]) -> None:
    facts, _ = report
    reference, result = (traces(files["int8"], files["frames"], p) for p in ("fp32", None))
    assert [layer["name"] for layer in facts["layers"]] == list(reference[0])[1:]
    assert sum(len(layer["ranges"]) for layer in facts["layers"]) == 6
    for layer in facts["layers"]:
        name = layer["name"]
        a, b = (np.concatenate([t[name].ravel() for t in side]).astype(float) for side in (reference, result))
        error = ((a - b) ** 2).sum()
        wanted = 10 * np.log10((a**2).sum() / error) if error else None
        assert layer["difference"]["sqnr_db"] == (None if wanted is None else pytest.approx(wanted))
        for each in layer["ranges"]:
            values = np.concatenate([t[each["source"]].ravel() for t in reference]).astype(np.float32)
            nonzero = np.abs(values[values != 0])
            assert each["values"] == values.size and each["largest"] == pytest.approx(max(values.max(), 0))
            assert each["beyond_share"] == np.mean(nonzero > each["amax"])
            assert each["rounded_to_zero_share"] == np.mean(np.rint(nonzero / each["amax"] * 127) == 0)


def test_the_sensitivity_is_that_of_quant(files: Files, report: tuple[dict[str, Any], str]) -> None:
    graph = file_graph(files["int8"]).graph
    wanted = sensitivity(graph, FrameFiles.find(files["frames"]), progress=False)
    assert report[0]["sensitivity"]["layers"] == [row.to_dict() for row in wanted.layers]
    assert wanted.layers[0].name in report[1] and f"{wanted.together_sqnr_db:.1f}" in report[1]


def test_the_page_is_whole_and_holds_everything_itself(report: tuple[dict[str, Any], str]) -> None:
    facts, html = report
    page = Page(html)
    assert "script" not in page.tags and "link" not in page.tags and "url(" not in html
    assert page.references and all(ref.startswith("data:image/png;base64,") for ref in page.references)
    assert "default-src 'none'" in html and 'name="viewport"' in html
    for layer in facts["layers"]:
        assert page.text.count(layer["name"]) >= 2, layer["name"]
    for section in ("Bird's-eye view", "Graph", "Sensitivity", "Layers", "Time", "File and machine"):
        assert section in page.text
    assert "colours by the square root, from 0 to" in page.text
    assert page.text.count("occupied cells clipped") == 3
    assert "numpy" in page.text and facts["environment"]["cpu"] in page.text
    assert html.count('class="histogram"') == 6
    stages = [stage["name"] for stage in facts["stages"]]
    assert "conv1.0.conv2" in stages and all(f"{name} (" in page.text for name in stages)
    add = next(layer for layer in facts["layers"] if layer["op_type"] == "Add")
    assert add["fused_into"] == "conv1.0.conv2" and add["inputs"] == ["conv1.0.conv2", "conv_input.0"]


def test_a_histogram_marks_what_lies_beyond_the_range() -> None:
    use = RangeUse(0, "a", 4.0)
    use.collect(np.array([[0.0, -0.01, 0.5], [-3.9, 7.9, 8.0]], np.float32))
    assert (use.beyond, use.vanished, use.histogram.zeros) == (2, 1, 1)
    drawn = histogram(use)
    assert drawn.count('class="in"') == 3 and drawn.count('class="over"') == 1
    assert 'x1="160.0"' in drawn and "range 4<" in drawn
    Page(drawn)


def test_names_out_of_a_file_are_text(files: Files, tmp_path: Path) -> None:
    name = "<script>alert(1)</script>\"'&\x1b"
    model = onnx.load(files["int8"])
    model.graph.node[-2].name = name
    entry = model.metadata_props.add()
    entry.key, entry.value = "<img src=http://evil>", "</table><script>"
    onnx.save(model, tmp_path / "hostile.onnx")
    _, html = made(tmp_path / "hostile.onnx", files["frames"], tmp_path, "--no-sensitivity")
    page = Page(html)
    assert "script" not in page.tags and "\x1b" not in html
    assert all(ref.startswith("data:") for ref in page.references)
    assert "<script>alert(1)</script>\"'&\\x1b" in page.text and "<img src=http://evil>" in page.text


def test_a_float_file_says_why_there_is_no_sensitivity(files: Files, tmp_path: Path) -> None:
    text = invoke("report", files["float"], "--frames", files["frames"], "-o", tmp_path / "a.html").output
    assert "the file has no int8 ranges" in text and f"saved {tmp_path / 'a.html'}" in text
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "no int8 ranges" in page.text and "clipped at most" not in page.text


def test_without_torch_all_but_the_sensitivity_is_there(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scn_fx.cli.report import command

    found = command.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "torch" else found(name))
    monkeypatch.setitem(sys.modules, "scn_fx.runtime.file_graph", None)
    facts, html = made(files["int8"], files["frames"], tmp_path)
    assert "needs the package 'torch'" in facts["sensitivity"] and facts["sensitivity"] in Page(html).text


def test_a_sensitivity_that_fails_costs_no_page(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise CalibrationError("There is no layer to try in int8.")

    monkeypatch.setattr(quant, "sensitivity", fails)
    facts, html = made(files["int8"], files["frames"], tmp_path)
    assert facts["sensitivity"] == "Not measured: There is no layer to try in int8."
    assert facts["sensitivity"] in Page(html).text


def test_a_detector_that_does_not_fit_is_refused(tmp_path: Path, files: Files) -> None:
    wrong = invoke("report", files["int8"], "--detector", "demo", "-o", tmp_path / "a.html", code=1).stderr
    assert "the file records no voxel grid" in wrong and "--grid" in wrong
    torch.manual_seed(0)
    save_detector(tmp_path / "d.npz", Detector.fresh(3, (4, 4, 4, 4), grid=(12, 12, 40), head_width=4))
    grid = ("--grid", "0,0,0,12,12,5,1,1,1")
    arguments = ("--frames", files["frames"], *grid, "--detector", tmp_path / "d.npz", "--no-sensitivity")
    other = invoke("report", files["int8"], *arguments, "-o", tmp_path / "a.html", code=1).stderr
    assert "The head takes a dense map [1, 8, H, W]" in other and not (tmp_path / "a.html").exists()


def test_a_detectors_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    grid = VoxelGrid((-6.4, -6.4, -5.0, 6.4, 6.4, 3.0), (0.2, 0.2, 0.2))
    torch.manual_seed(0)
    detector = Detector.fresh(5, (4, 8, 8, 8), grid=(64, 64, 40), head_width=4)
    detector.head.heat[-1].bias.data.zero_()
    save_detector(tmp_path / "d.npz", detector)
    detector = load_detector(tmp_path / "d.npz")
    features, indices = demo_frame(0, 1000, grid=(64, 64, 40))
    arguments = detector.encoder.arguments(features.float(), indices)
    export_onnx(capture(detector.encoder, arguments, output=0, grid=grid), tmp_path / "d.onnx")
    write_tensor(tmp_path / "a.features.tensor", features.numpy())
    write_tensor(tmp_path / "a.indices.tensor", indices.numpy())
    frame = ("--frames", tmp_path / "a.features.tensor", "--detector", tmp_path / "d.npz")
    invoke("report", tmp_path / "d.onnx", *frame, "-o", tmp_path / "a.html")
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    boxes = detect(Engine(tmp_path / "d.onnx"), detector.head, features, indices, grid=grid)
    sure = boxes[boxes.score >= 0.3]
    assert len(sure) and html.count(f"<br>{len(sure)} boxes") == 2
    drawn = re.findall(r'class="boxes" [^>]* d="([^"]*)"', html)
    assert len(drawn) == 2
    first = [float(n) for n in re.findall(r"-?[\d.]+", drawn[0])[:2]]
    x, y = sure.corners()[0, 0]
    assert first == pytest.approx([(x + 6.4) / 12.8 * 8, (6.4 - y) / 12.8 * 8], abs=0.06)
    assert "x from -6.4 to 6.4 m" in Page(html).text


def test_wrong_options_say_what_to_do(files: Files, tmp_path: Path) -> None:
    alone = invoke("report", files["int8"], "--format", "kitti", "-o", tmp_path / "a.html", code=1).stderr
    assert "give --frames as well" in alone
    nothing = invoke(
        "report", files["int8"], "--frames", tmp_path / "none", "-o", tmp_path / "a.html", code=1
    )
    assert "there is nothing" in nothing.stderr and not list(tmp_path.glob("*.html"))


def test_the_numbers_of_bars_and_cards_are_finite(report: tuple[dict[str, Any], str]) -> None:
    widths = [float(width) for width in re.findall(r'style="width:([^%]*)%"', report[1])]
    assert len(widths) > 10 and all(0 <= width <= 100 for width in widths) and "nan" not in report[1]
