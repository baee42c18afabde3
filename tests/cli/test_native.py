# SPDX-License-Identifier: Apache-2.0
"""Commands on a model in the form of the engine's own dialect (--native), from calibration to comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from scn_fx.files.onnx_models import read_model
from scn_fx.lidar import write_tensor
from tests.capture.frames import frame
from tests.cli.conftest import MODEL, invoke, invoke_json

UNET = "tests.cli.test_native:unet"


def unet() -> Any:
    """(module, args) of a level of a U-Net: a concatenation with a BatchNorm behind it."""
    from tests.capture.frames import randomise, sparse
    from tests.capture.test_own_dialect import UBlock

    torch.manual_seed(0)
    return randomise(UBlock(8, 16)).eval(), (sparse(*frame()),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("native")
    features, indices = (tensor.numpy() for tensor in frame())
    write_tensor(found / "0.features.tensor", features)
    write_tensor(found / "0.indices.tensor", indices)
    return found


def _types(file: Path) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(file).graph.node}


def test_calibrate_export_compare_and_sensitivity(folder: Path) -> None:
    cache, file = folder / "cache.json", folder / "native.onnx"
    named = ("--model", UNET, "--native")
    invoke("calibrate", *named, "--frames", folder, "-o", cache, "--method", "max")
    facts = invoke_json("export", *named, "--cache", cache, "-o", file)
    assert facts["dialect"] == "scn_fx" == read_model(file)["metadata"]["scn_fx.dialect"]
    assert {"Concat", "Affine"} <= _types(file)
    invoke("compare", file, *named, "--cache", cache, "--frames", folder, "--identical")
    invoke("sensitivity", *named, "--cache", cache, "--frames", folder, "--layer", "after*")


def test_a_cache_of_one_form_does_not_fit_the_other(folder: Path) -> None:
    caches = {native: folder / f"{native}.json" for native in (True, False)}
    for native, cache in caches.items():
        flag = ("--native",) if native else ()
        invoke("calibrate", "--model", UNET, *flag, "--frames", folder, "-o", cache, "--method", "max")
    for native, made in ((True, "of another form"), (False, "of the dialect scn_fx")):
        flag = ("--native",) if native else ()
        shown = invoke("export", "--model", UNET, *flag, "--cache", caches[not native], code=1).output
        assert f"made with a graph {made} (--native on the command line" in shown


def test_what_has_its_form_already_refuses_the_option(folder: Path) -> None:
    file = folder / "float.onnx"
    invoke("export", "--model", UNET, "--float", "--dialect", "scn_fx", "-o", file)
    assert "Concat" not in _types(file)
    shown = invoke("sensitivity", file, "--native", "--frames", folder, code=1).output
    assert "--native goes with a model" in shown
    shown = invoke("export", "--model", MODEL, "--float", "--native", "-o", file, code=1).output
    assert "returns a captured graph, whose form is chosen" in shown
