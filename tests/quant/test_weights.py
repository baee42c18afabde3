# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as people have them: containers, prefixes, dtypes, layouts; and what does not fit, by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spconv.pytorch as spconv
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import scn_fx
from scn_fx.errors import CalibrationError
from scn_fx.quant.layouts import LAYOUTS, in_module_layout
from scn_fx.quant.weights import load_weights
from tests.oracle.frames import random_sites

SHAPE = (7, 9, 8)


class Encoder(nn.Module):
    """Layers of all kinds that have weights of their own order: submanifold, strided, 1x1x1, inverse."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        a, b, c = widths or (3, 6, 5)
        self.conv_input = spconv.SparseSequential(
            spconv.SubMConv3d(a, b, 3, bias=False, indice_key="s"), nn.BatchNorm1d(b), nn.ReLU()
        )
        self.down = spconv.SparseConv3d(b, c, (3, 1, 2), 2, 1, bias=False, indice_key="d")
        self.point = spconv.SubMConv3d(c, b, 1, bias=False)
        self.up = spconv.SparseInverseConv3d(b, b, (3, 1, 2), indice_key="d", bias=False)

    def forward(self, x: Any) -> Any:
        return self.up(self.point(self.down(self.conv_input(x))))


def made(seed: int = 0, *widths: int) -> Encoder:
    torch.manual_seed(seed)
    model = Encoder(*widths).eval()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value))
    return model


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "c.pth")
    return folder / "c.pth"


def arrives(content: Any, folder: Path, **options: Any) -> None:
    """Loading gives the weights of `made(0)`."""
    model = made(1)
    load_weights(model, saved(content, folder), **options)
    for name, value in made(0).state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(model.state_dict()[name], value), name


def fails(content: Any, folder: Path, match: str, model: nn.Module | None = None, **options: Any) -> str:
    """Loading is refused, and the model is as it was."""
    model = model or made(1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CalibrationError, match=match) as raised:
        load_weights(model, saved(content, folder), **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(raised.value)


STATE = made(0).state_dict()


CONTAINERS = (
    "state_dict", "model_state", "model_state_dict", "model", "net", "network", "weights", "my_own",
)  # fmt: skip


def under(prefix: str, state: dict[str, Any] = STATE) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        *({key: STATE, "epoch": 3} for key in CONTAINERS),
        {"model": {"state_dict": STATE}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        {"state_dict": under("model.backbone."), "hyper_parameters": {"a": np.float32(1)}},
        {"model_state": under("backbone_3d."), "version": "x"},
        {"net": under("module._orig_mod.encoders.lidar.") | {"head.weight": torch.zeros(2)}},
        made(0),
        {"model": made(0), "ema": None},
        (STATE, {"state": {}, "param_groups": [{"lr": 0.1}]}),
        {"models": [under("net."), {"head.weight": torch.zeros(2)}]},
        {"state_dict": {k: v.double() for k, v in STATE.items()}},
    ],
)  # fmt: skip
def test_containers_and_prefixes(content: Any, tmp_path: Path) -> None:
    arrives(content, tmp_path)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        model = made(1)
        load_weights(model, saved({k: v.to(dtype) for k, v in STATE.items()}, tmp_path))
        assert model.down.weight.dtype == torch.float32
        assert torch.equal(model.down.weight, STATE["down.weight"].to(dtype).float())


def test_a_copy_of_the_weights_is_never_picked_in_silence(tmp_path: Path) -> None:
    other = made(2).state_dict()
    twice = {"state_dict": under("backbone.") | under("encoders.lidar.", other)}
    text = fails(twice, tmp_path, "several prefixes")
    assert "'state_dict.backbone.', 'state_dict.encoders.lidar.'" in text and "--checkpoint-prefix" in text
    arrives(twice, tmp_path, prefix="backbone.")
    averaged = {"state_dict": STATE, "ema_state_dict": under("module.", other)}
    text = fails(averaged, tmp_path, "'state_dict.', 'ema_state_dict.module.'")
    arrives(averaged, tmp_path, prefix="state_dict.")
    arrives({"state_dict": STATE | under("ema.", other)}, tmp_path)  # one by its full name


def test_what_is_there_and_what_is_near_is_named(tmp_path: Path) -> None:
    partly = {"net": {k: v for k, v in under("enc.").items() if "down" not in k}}
    text = fails(partly, tmp_path, "lacks 1 of 8 weights of Encoder: net.enc.down.weight")
    assert "nearest prefix is 'net.enc.', where 7 of 8 fit" in text and "net.enc.conv_input.0.weight" in text
    text = fails({"model": {"head.weight": torch.zeros(2)}}, tmp_path, "lacks all 8 weights")
    assert "The file holds model.head.weight" in text
    fails({"state_dict": {}, "epoch": 1}, tmp_path, "holds no state dict, but a dict with state_dict, epoch")
    fails(STATE, tmp_path, "under the prefix 'ema.'", prefix="ema.")


def test_a_weight_without_a_place_is_not_dropped(tmp_path: Path) -> None:
    fails(STATE | {"down.bias": torch.zeros(5)}, tmp_path, "holds down.bias, for which Encoder has no place")
    arrives(STATE | {"down._input_quantizer._amax": torch.ones(1)}, tmp_path)


def test_other_kinds_of_values(tmp_path: Path) -> None:
    whole = STATE["down.weight"].to(torch.int8)
    fails(STATE | {"down.weight": whole}, tmp_path, "down.weight must be a plain floating-point tensor")
    for value in (float("nan"), float("inf")):
        broken = torch.full_like(STATE["down.weight"], value)
        fails(STATE | {"down.weight": broken}, tmp_path, "down.weight holds NaN or infinite values")
    sparse = STATE["conv_input.1.bias"].to_sparse()
    fails(STATE | {"conv_input.1.bias": sparse}, tmp_path, "must be a plain floating-point tensor")


class Twice(nn.Module):
    """One encoder under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = made(1)
        self.encoders = nn.ModuleDict({"lidar": self.backbone})


def test_a_layer_with_two_names_needs_one_of_them(tmp_path: Path) -> None:
    for content in (
        under("backbone."),
        under("encoders.lidar."),
        under("backbone.") | under("encoders.lidar."),
    ):
        model = Twice()
        load_weights(model, saved(content, tmp_path))
        assert torch.equal(model.backbone.down.weight, STATE["down.weight"])
    differing = under("backbone.") | under("encoders.lidar.", made(2).state_dict())
    fails(differing, tmp_path, "are one tensor in the model, but differ in the checkpoint", Twice())


# Layouts

AXES = {"KRSC": (0, 1, 2, 3, 4), "RSCK": (1, 2, 3, 4, 0), "RSKC": (1, 2, 3, 0, 4)}
CONVOLUTIONS = ("conv_input.0.weight", "down.weight", "point.weight", "up.weight")


def version_1(seed: int, *widths: int) -> dict[str, torch.Tensor]:
    """A state dict of spconv 1.x: weights [kz, ky, kx, in, out]."""
    model = made(seed, *widths)
    state = model.state_dict()
    for name in CONVOLUTIONS:
        out, *kernel, inner = state[name].shape
        state[name] = torch.randn(*kernel, inner, out)
    return state


def look_up(
    state: dict[str, torch.Tensor], features: torch.Tensor, indices: torch.Tensor
) -> dict[tuple[int, ...], np.ndarray]:
    """The encoder in float64 with spconv 1.x's weights: y[o] = sum over offsets of x[i] @ W[offset]."""
    weight = {name: state[name].double().numpy() for name in CONVOLUTIONS}
    x = {tuple(i[1:]): f for i, f in zip(indices.tolist(), features.double().numpy(), strict=True)}
    w = weight["conv_input.0.weight"]
    y = {
        site: sum(
            (x[near] @ w[k] for k in np.ndindex(*w.shape[:3])
             if (near := tuple(s + d - 1 for s, d in zip(site, k, strict=True))) in x),
            np.zeros(w.shape[4]),
        )
        for site in x
    }  # fmt: skip
    mean, var, gain, shift = (
        state[f"conv_input.1.{name}"].double().numpy()
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    y = {site: np.maximum((v - mean) / np.sqrt(var + 1e-5) * gain + shift, 0) for site, v in y.items()}
    w, pairs, z = weight["down.weight"], [], {}
    limits = [(n + 2 - k) // 2 + 1 for n, k in zip(SHAPE, w.shape[:3], strict=True)]
    for site, value in y.items():
        for k in np.ndindex(*w.shape[:3]):
            place = [s + 1 - d for s, d in zip(site, k, strict=True)]
            target = tuple(p // 2 for p in place)
            if all(p % 2 == 0 for p in place) and all(
                0 <= t < n for t, n in zip(target, limits, strict=True)
            ):
                pairs.append((site, k, target))
                z[target] = z.get(target, np.zeros(w.shape[4])) + value @ w[k]
    z = {site: value @ weight["point.weight"][0, 0, 0] for site, value in z.items()}
    w, result = weight["up.weight"], {site: np.zeros(weight["up.weight"].shape[4]) for site in y}
    for site, k, target in pairs:
        result[site] = result[site] + z[target] @ w[k]
    return result


def test_spconv_1_weights_compute_what_they_computed(tmp_path: Path) -> None:
    state = version_1(5)
    model = made(1)
    load_weights(model, saved({"state_dict": under("backbone.", state)}, tmp_path))
    rng = np.random.default_rng(0)
    indices = torch.from_numpy(random_sites(rng, 90, SHAPE))
    features = torch.from_numpy(rng.standard_normal((90, 3)).astype(np.float32))
    tensor = spconv.SparseConvTensor(features, indices, list(SHAPE), 1)
    expected = look_up(state, features, indices)
    wanted = np.stack([expected[tuple(i[1:])] for i in indices.tolist()])
    with torch.no_grad():
        np.testing.assert_allclose(
            model(tensor).features.numpy(), wanted, rtol=1e-4, atol=1e-4 * abs(wanted).max()
        )
    graph = scn_fx.capture(model, (tensor,))
    rows, sites = graph(features, indices)
    wanted = np.stack([expected[tuple(i[1:])] for i in sites.tolist()])
    np.testing.assert_allclose(rows.numpy(), wanted, rtol=1e-4, atol=1e-4 * abs(wanted).max())


@pytest.mark.parametrize("layout", ["RSCK", "RSKC"])
def test_the_layout_of_the_whole_file_is_found(layout: str, tmp_path: Path) -> None:
    state = dict(STATE)
    for name in CONVOLUTIONS:
        moved = state[name].permute(AXES[layout])
        point = name == "point.weight"  # its numbers keep their order in memory
        state[name] = state[name].reshape(moved.shape) if point else moved.contiguous()
    arrives(state, tmp_path)
    arrives(state, tmp_path, layout=layout)
    fails(state, tmp_path, r"must be \[6, 3, 3, 3, 3\] in \[out.*got .* layout is another", layout="KRSC")


def test_shapes_that_do_not_decide_are_refused_with_both_readings(tmp_path: Path) -> None:
    cube = nn.Sequential(spconv.SubMConv3d(3, 3, 3, bias=False))
    torch.manual_seed(3)
    state = {"0.weight": torch.randn(3, 3, 3, 3, 3)}
    text = fails(state, tmp_path, "fit several layouts", cube)
    assert LAYOUTS["KRSC"] in text and LAYOUTS["RSCK"] in text and "--checkpoint-layout" in text
    for layout, axes in (("KRSC", (0, 1, 2, 3, 4)), ("RSCK", (4, 0, 1, 2, 3))):
        load_weights(cube, tmp_path / "c.pth", layout=layout)
        assert torch.equal(cube[0].weight, state["0.weight"].permute(axes))
    # one layer that decides is enough for the whole file
    both = nn.Sequential(spconv.SubMConv3d(3, 3, 3, bias=False), spconv.SubMConv3d(3, 4, 3, bias=False))
    load_weights(both, saved(state | {"1.weight": torch.randn(3, 3, 3, 3, 4)}, tmp_path))
    assert torch.equal(both[0].weight, state["0.weight"].permute(4, 0, 1, 2, 3))
    wide = {"0.weight": torch.randn(3, 3, 3, 8, 8)}
    text = fails(wide, tmp_path, "fit several layouts", nn.Sequential(spconv.SubMConv3d(8, 8, 3, bias=False)))
    assert LAYOUTS["RSCK"] in text and LAYOUTS["RSKC"] in text and LAYOUTS["KRSC"] not in text


def test_layers_of_one_offset_alone_need_no_decision(tmp_path: Path) -> None:
    point = nn.Sequential(spconv.SubMConv3d(4, 4, 1, bias=False))
    weight = torch.randn(1, 1, 1, 4, 4)
    load_weights(point, saved({"0.weight": weight}, tmp_path))
    assert torch.equal(point[0].weight.detach().view(4, 4), weight.view(4, 4))


def test_wrong_channels_are_told_from_another_layout(tmp_path: Path) -> None:
    text = fails(made(0, 3, 7, 5).state_dict(), tmp_path, "Channels or kernel differ")
    assert r"must be [6, 3, 3, 3, 3] in [out, kz, ky, kx, in] (spconv 2.x) or [3, 3, 3, 3, 6] in" in text
    mixed = STATE | {"down.weight": version_1(0)["down.weight"]}
    text = fails(mixed, tmp_path, "mixes weight layouts")
    assert "down.weight is [kz, ky, kx, in, out]" in text
    fails(
        STATE | {"conv_input.1.bias": torch.zeros(7)}, tmp_path, r"conv_input.1.bias must be \[6\], got \[7\]"
    )
    fails(STATE, tmp_path, "Unknown weight layout 'NHWC'; expected one of KRSC, RSCK, RSKC", layout="NHWC")


@given(
    st.integers(1, 4), st.integers(1, 4), st.tuples(*[st.integers(1, 3)] * 3), st.sampled_from(list(LAYOUTS)),
    st.integers(0, 99),
)  # fmt: skip
def test_every_layout_comes_back(
    out: int, inner: int, kernel: tuple[int, ...], layout: str, seed: int
) -> None:
    convolution = spconv.SubMConv3d(inner, out, list(kernel), bias=False)
    weight = torch.randn(out, *kernel, inner, generator=torch.Generator().manual_seed(seed))
    moved = weight.permute(AXES[layout])
    stored = weight.reshape(moved.shape) if convolution.conv1x1 else moved
    assert torch.equal(in_module_layout(stored, layout, convolution), weight)
