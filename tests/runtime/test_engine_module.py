# SPDX-License-Identifier: Apache-2.0
"""`scn_fx.EngineModule` in the place of the module that a network was captured from."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

import quant
import scn_fx
from scn_fx import zoo
from scn_fx.errors import ArgumentError, OnnxError
from scn_fx.exporting import export_onnx, quiet
from scn_fx.runtime.interfaces import Call, Interface

Frame = tuple[torch.Tensor, torch.Tensor]


class Detector(nn.Module):
    """As detectors are: an encoder, then dense layers."""

    def __init__(self, encoder: nn.Module, channels: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone = encoder
        self.head = nn.Conv2d(channels, 3, 1)
        self.grid = grid

    def forward(self, features: torch.Tensor, coors: torch.Tensor, batch_size: int = 1) -> torch.Tensor:
        dense, _ = self.backbone(features, coors, batch_size, self.grid)
        return self.head(dense)


def _file(model: Any, frame: Frame, folder: Path) -> Path:
    graph = scn_fx.capture(model, model.arguments(*frame), model.main_output)
    with quiet():
        quant.calibrate(graph, [frame], progress=False)
        export_onnx(graph, folder / "scn.onnx")
    return folder / "scn.onnx"


def _float(model: Any, frame: Frame) -> Any:
    """What the model computes; spconv's CPU build runs no layer with a bias, so the captured graph does."""
    return scn_fx.capture(model, model.arguments(*frame), model.main_output)(*frame)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return zoo.demo_frame(0, 600, grid=(32, 32, 40), in_channels=5)


@pytest.fixture(scope="module")
def encoder(frame: Frame) -> nn.Module:
    model = zoo.CenterPointEncoder(5, grid=(32, 32, 40), channels=(8, 8, 8, 16))
    zoo.randomise_weights(model, *frame)
    return model.eval()


@pytest.fixture(scope="module")
def file(encoder: nn.Module, frame: Frame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _file(encoder, frame, tmp_path_factory.mktemp("module"))


@pytest.fixture(scope="module")
def second(frame: Frame) -> nn.Module:
    model = zoo.SecondEncoder(5, grid=(32, 32, 40), channels=(8, 8, 8, 8, 16))
    zoo.randomise_weights(model, *frame)
    return model.eval()


def test_a_detector_runs_with_the_engine_in_its_place(encoder: nn.Module, file: Path, frame: Frame) -> None:
    with torch.no_grad():
        given = _float(encoder, frame)
        detector = Detector(encoder, given.shape[1], (40, 32, 32)).eval()
        detector.backbone = scn_fx.EngineModule(file, interface="centerpoint")
        boxes = detector(*frame)
        expected = detector.head(scn_fx.Engine(file)(*frame, 1).float())
    assert torch.equal(boxes, expected) and boxes.dtype == torch.float32
    error = (detector.backbone(*frame)[0] - given).norm() / given.norm()
    assert error < 0.2  # int8 against float32


def test_it_keeps_the_dtype_of_the_features(file: Path, frame: Frame) -> None:
    module = scn_fx.EngineModule(file)
    assert module(frame[0].half(), frame[1]).dtype == torch.float16
    assert module(frame[0].double().float(), frame[1].long()).dtype == torch.float32


def test_a_sparse_result_for_openpcdet(second: nn.Module, frame: Frame, tmp_path: Path) -> None:
    module = scn_fx.EngineModule(_file(second, frame, tmp_path), interface="openpcdet", precision="fp32")
    result = module(second.arguments(*frame)[0])
    assert result["encoded_spconv_tensor_stride"] == 8 and result["batch_size"] == 1
    made, (features, indices) = result["encoded_spconv_tensor"], _float(second, frame)
    assert type(made) is spconv.SparseConvTensor and made.spatial_shape == [2, 4, 4]
    assert torch.equal(made.indices, indices)
    assert (made.features - features).norm() < 0.01 * features.norm()  # its file rounds weights to float16
    batch, channels, *cells = made.dense().shape
    assert (batch, channels, cells) == (1, 16, [2, 4, 4])


def test_a_dense_map_for_openpcdet(file: Path, frame: Frame) -> None:
    module = scn_fx.EngineModule(file, interface="openpcdet")
    result = module({"voxel_features": frame[0], "voxel_coords": frame[1].float(), "batch_size": 1})
    dense = result["encoded_spconv_tensor"].dense()
    batch, channels, depth, height, width = dense.shape
    assert torch.equal(dense.view(batch, channels * depth, height, width), scn_fx.EngineModule(file)(*frame))


def test_copies_and_pickles_compute_the_same(file: Path, frame: Frame) -> None:
    module = scn_fx.EngineModule(file, threads=1)
    expected = module(*frame)
    file_in_memory = io.BytesIO()
    torch.save(module, file_in_memory)
    file_in_memory.seek(0)
    copies = (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file_in_memory, weights_only=False),
    )
    for other in copies:
        assert other.engine is not module.engine and other.engine.threads == 1
        assert torch.equal(other(*frame), expected)
    assert not module.state_dict() and not list(module.parameters())
    assert "bytes of ONNX" in repr(module)


def test_a_copy_outlives_the_file(file: Path, frame: Frame, tmp_path: Path) -> None:
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(file.read_bytes())
    module = scn_fx.EngineModule(moved)
    moved.unlink()
    assert torch.equal(copy.deepcopy(module)(*frame), scn_fx.EngineModule(file)(*frame))


def test_batches(file: Path, frame: Frame) -> None:
    module, indices = scn_fx.EngineModule(file), frame[1].clone()
    indices[:, 0] = 1
    two = torch.cat([frame[0], frame[0]]), torch.cat([frame[1], indices])
    result = module(*two, 2)
    assert result.shape[0] == 2 and torch.equal(result[0], result[1])
    assert torch.equal(module(*two), result)  # counted from the indices
    assert torch.equal(result[:1], module(*frame))


def test_an_interface_of_ones_own(file: Path, frame: Frame) -> None:
    interface = Interface(
        take=lambda points, extra: Call(points["f"], points["i"], 1),
        give=lambda result, points, extra: {"map": result.plain(), "extra": extra, "stride": result.stride},
    )
    result = scn_fx.EngineModule(file, interface=interface)({"f": frame[0], "i": frame[1]}, extra=7)
    assert result["extra"] == 7 and result["stride"] == 8 and result["map"].dim() == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interface": "spconv"}, "interface must be one of arguments, centerpoint"),
        ({"device": "cpu"}, "device is no option here"),
        ({"threads": 0}, "threads"),
    ],
)
def test_wrong_options(file: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        scn_fx.EngineModule(file, **options)


def test_wrong_calls(file: Path, frame: Frame) -> None:
    module = scn_fx.EngineModule(file)
    with pytest.raises(ArgumentError, match="no gradient passes"):
        module(frame[0].clone().requires_grad_(), frame[1])
    with torch.no_grad():
        module(frame[0].clone().requires_grad_(), frame[1])
    with pytest.raises(ArgumentError, match="features must be a tensor, got ndarray"):
        module(frame[0].numpy(), frame[1])
    with pytest.raises(ArgumentError, match="features lie on meta, the module on cpu"):
        module(frame[0].to("meta"), frame[1])
    with pytest.raises(ArgumentError, match=r"expects one dict with .*, got a dict with \['voxels'\]"):
        scn_fx.EngineModule(file, interface="openpcdet")({"voxels": frame[0]})
    with pytest.raises(OnnxError):
        scn_fx.EngineModule(b"no file")
