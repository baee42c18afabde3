# SPDX-License-Identifier: Apache-2.0
"""Blocks of pages in Python, C++ and YAML: every one runs, or says here why it cannot."""

from __future__ import annotations

import copy
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch

import scn_fx
import scn_fx.zoo
from scn_fx.exporting import export_onnx
from scn_fx.lidar import read_grid
from tests.docs.pages import ROOT, SHELL, Block, blocks, every_page
from tests.docs.test_shell_blocks import GUIDE
from tests.quant.graphs import frame, residual

HERE = Path(__file__).parent

RUN_BY = {
    "README.md": "test_the_example_of_the_readme_runs",
    "docs/tutorial.md": "test_docs.py",
    "docs/how-to/compare.md": "test_docs.py",
    "docs/how-to/detector.md": "test_docs.py",
    "docs/how-to/head.md": "test_docs.py",
    "docs/how-to/capture-a-model.md": "test_docs.py",
    "docs/how-to/precision.md": "test_precision_pages.py",
    "docs/how-to/retrofit.md": "test_precision_pages.py",
    "docs/how-to/bridges.md": "test_precision_pages.py",
    "docs/how-to/lidar-input.md": "../lidar/test_docs.py",
    "docs/how-to/calibrate.md": "test_the_pages_about_calibration_run",
    "docs/how-to/improve-accuracy.md": "test_the_pages_about_calibration_run",
    "docs/how-to/benchmark.md": "test_the_pages_about_calibration_run",
    "docs/reference/onnx-dialect.md": "test_the_pages_about_calibration_run",
    "docs/explanation/capture.md": "test_the_page_about_capture_runs",
    GUIDE: "test_shell_blocks.py",
    "docs/how-to/cpp.md": "test_the_frame_of_the_cpp_page_is_written",
    "docs/how-to/plan.md": "test_the_page_about_plans_runs",
}
NOT_RUN = {"docs/how-to/cuda.md": "needs a GPU"}
"""Pages none of whose blocks can run here; of capture-a-model.md the last two need OpenPCDet."""

PYTHON = [b for page in every_page() for b in blocks(page) if b.language == "python" and b.run]


def python(page: str) -> list[Block]:
    found = [block for block in PYTHON if block.page == page]
    assert found, page
    return found


LEFT_OUT = [*python("docs/how-to/cuda.md"), *python("docs/how-to/capture-a-model.md")[2:]]


def test_every_page_with_python_is_run() -> None:
    assert {block.page for block in PYTHON} == RUN_BY.keys() | NOT_RUN.keys()
    own = Path(__file__).read_text(encoding="utf-8")
    for page, test in RUN_BY.items():
        assert f"def {test}(" in own or Path(page).stem in (HERE / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", LEFT_OUT, ids=lambda b: b.page)
def test_what_cannot_run_here_is_python(block: Block) -> None:
    compile(block.text, block.page, "exec")


def test_every_other_language_is_known() -> None:
    languages = {block.language for page in every_page() for block in blocks(page)}
    assert languages <= {"python", "cpp", "cmake", "yaml", "toml", "text", "", *SHELL}


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    narrow = partial(scn_fx.zoo.demo_model, channels=(4, 8, 8, 8))  # the same network in less time
    monkeypatch.setattr(scn_fx.zoo, "demo_model", narrow)
    names: dict[str, Any] = {}
    for block in python("README.md"):
        exec(block.text, names)
    assert tuple(names["dense"].shape) == (1, 16, 180, 180)
    assert "every bit is the same" in capsys.readouterr().out


def test_the_frame_of_the_cpp_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = python("docs/how-to/cpp.md")
    exec(block.text, {})
    features, indices = (scn_fx.lidar.read_tensor(f"{name}.tensor") for name in ("features", "indices"))
    assert features.shape == (80601, 5) and indices.shape == (80601, 4)


def test_the_page_about_plans_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = residual()
    export_onnx(graph, tmp_path / "scn.onnx", "torchscript")
    features, indices = frame(0)
    names: dict[str, Any] = {"features": features, "indices": indices}
    (block,) = python("docs/how-to/plan.md")
    exec(block.text, names)
    expected = scn_fx.Engine("scn.onnx")(features, indices)
    assert all(map(torch.equal, names["dense"], expected)) and len(expected) > 0


@pytest.mark.filterwarnings("ignore")
def test_the_pages_about_calibration_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    float_graph = residual()
    frames = [frame(seed) for seed in range(2)]
    # the pages capture a model of the reader's and name frames of his; a graph made by hand stands for both
    monkeypatch.setattr(scn_fx, "capture", lambda model, args: copy.deepcopy(float_graph))
    features, indices = frames[0]
    names: dict[str, Any] = {"model": None, "args": (), "features": features, "indices": indices}
    names["given"] = frames
    for block in python("docs/how-to/calibrate.md"):
        exec(block.text.replace(LISTED, "list(given)"), names)
    printed = capsys.readouterr().out
    assert "conv1.0.conv1 int8" in printed and "largest seen:" in printed
    assert (tmp_path / "entropy.json").exists()

    export_onnx(names["graph"], tmp_path / "scn.onnx", "torchscript")
    (profile,) = python("docs/how-to/benchmark.md")
    exec(profile.text, names)
    assert "extra_conv.0" in capsys.readouterr().out
    (exports,) = python("docs/reference/onnx-dialect.md")
    exec(exports.text, names)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return values.square().mean()

    names |= {"graph": copy.deepcopy(float_graph), "loss": loss, "head": torch.nn.Identity()}
    for block in python("docs/how-to/improve-accuracy.md"):
        if "import copy" in block.text:
            names["graph"] = copy.deepcopy(float_graph)  # the page begins anew, step by step
        exec(block.text.replace("steps=200", "steps=2"), names)
    assert "of the integers" in capsys.readouterr().out


class Bev(torch.nn.Module):
    """An encoder that leaves what OpenPCDet's leave, and the map that its HeightCompression makes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = scn_fx.zoo.SecondEncoder(grid=GRID)

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        batch_dict = self.encoder(batch_dict)
        dense = batch_dict["encoded_spconv_tensor"].dense()
        n, c, d, h, w = dense.shape
        batch_dict["spatial_features"] = dense.view(n, c * d, h, w)
        return batch_dict


GRID = (64, 64, 40)
LISTED = "[(features, indices), ...]"


@pytest.mark.filterwarnings("ignore")
def test_the_page_about_capture_runs() -> None:
    features, coors = scn_fx.zoo.demo_frame(0, 500, grid=GRID, in_channels=4)
    several = Bev().eval()
    encoder = scn_fx.zoo.CenterPointEncoder(4, (4, 8, 8, 8), grid=GRID)
    names: dict[str, Any] = {"features": features, "coors": coors, "batch_size": 1, "input_shape": list(GRID)}
    names["batch_dict"] = several.encoder.arguments(features, coors)[0]
    one, levels = python("docs/explanation/capture.md")
    exec(one.text, names | {"model": encoder})
    exec(levels.text, names | {"scn_fx": scn_fx, "model": several})


class Points(torch.nn.Module):
    """A network that takes dictionaries of points, as those of Pointcept do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = spconv.SubMConv3d(4, 8, 3, bias=False, indice_key="stem")

    def forward(self, points: dict[str, torch.Tensor]) -> torch.Tensor:
        coord, offset = points["grid_coord"], points["offset"]
        batch = torch.arange(len(offset)).repeat_interleave(torch.diff(offset, prepend=torch.zeros(1).long()))
        sites = torch.cat([batch.unsqueeze(-1).int(), coord.int()], dim=1).contiguous()
        shape = torch.add(torch.max(coord, dim=0).values, 96).tolist()
        tensor = spconv.SparseConvTensor(points["feat"], sites, shape, batch[-1].tolist() + 1)
        return self.stem(tensor).features


@pytest.mark.filterwarnings("ignore")
def test_the_guide_to_dictionaries_of_points_runs() -> None:
    feat, indices = scn_fx.zoo.demo_frame(0, 500, grid=(64, 64, 40), in_channels=4)
    indices = indices[:, [0, 3, 2, 1]].contiguous()
    names: dict[str, Any] = {"scn_fx": scn_fx, "model": Points().eval(), "feat": feat, "indices": indices}
    names |= {"grid_coord": indices[:, 1:].long(), "offset": torch.tensor([len(feat)])}
    block = python("docs/how-to/capture-a-model.md")[1]
    exec(block.text, names)
    assert names["out"].shape == (len(feat), 8)


def test_the_cpp_blocks_compile(tmp_path: Path) -> None:
    examples = [b for page in every_page() for b in blocks(page) if b.language == "cpp"]
    assert len(examples) >= 2
    given = "const void* features; const scn::Site* indices; int64_t sites; void* stream;"
    for number, block in enumerate(examples):
        includes = "\n".join(re.findall(r"^#include.*", block.text, re.MULTILINE))
        body = re.sub(r"^#include.*", "", block.text, flags=re.MULTILINE)
        before = given if number == 0 else f"{given} scn::FrameView frame;"
        path = tmp_path / f"{number}.cpp"
        path.write_text(f'#include "scn_fx/engine.h"\n{includes}\nvoid f() {{ {before}\n{body}\n}}\n')
        command = ["c++", "-std=c++17", "-fsyntax-only", f"-I{ROOT / 'scn_fx/csrc/include'}", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.page}: {done.stderr}"


def test_the_grid_files_are_read(tmp_path: Path) -> None:
    examples = [b for page in every_page() for b in blocks(page) if b.language == "yaml"]
    assert len(examples) == 1
    (tmp_path / "grid.yaml").write_text(examples[0].text)
    assert read_grid(tmp_path / "grid.yaml").spatial_shape == (41, 1600, 1408)
