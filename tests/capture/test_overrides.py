# SPDX-License-Identifier: Apache-2.0
"""Classes of the user's below spconv's own are captured as what they compute, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.capture import capture
from scn_fx.errors import CaptureError
from scn_fx.graph import layers
from tests.capture.frames import assert_same_as_spconv, frame, randomise, relative, sparse


class Centred(spconv.SubMConv3d):
    """Weight standardisation in `_conv_forward`, the arguments in their order."""

    def _conv_forward(self, training: bool, x: Any, weight: Any, bias: Any, *rest: Any, **more: Any) -> Any:
        weight = weight - weight.mean((1, 2, 3, 4), keepdim=True)
        return super()._conv_forward(training, x, weight, bias, *rest, **more)


class Scaled(spconv.SparseConv3d):
    """A learned gain in `_conv_forward`, the arguments by keyword."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.rand(self.out_channels) + 0.5)

    def _conv_forward(
        self, training: bool, input: Any, weight: Any, bias: Any, *rest: Any, **more: Any
    ) -> Any:
        return super()._conv_forward(
            training=training, input=input, weight=weight * self.gain.view(-1, 1, 1, 1, 1), bias=bias, **more
        )


class Inner(spconv.SubMConv3d):
    """A forward of its own around `_conv_forward`, with a weight of its own."""

    def forward(self, input: Any, add_input: Any = None) -> Any:
        result = self._conv_forward(self.training, input, self.weight.abs(), None)
        return result.replace_feature(torch.relu(result.features))


class Summed(spconv.SubMConv3d):
    """A forward around spconv's forward."""

    def forward(self, input: Any, add_input: Any = None) -> Any:
        result = super().forward(input)
        return result.replace_feature(result.features + input.features)


class Blocks(spconv.SparseSequential):
    def forward(self, input: Any) -> Any:
        result = super().forward(input)
        return result.replace_feature(result.features + input.features)


def computed_weight(conv: Any) -> Any:
    """A weight that a property computes: what parametrisations and quantisation-aware training do."""

    class Halved(type(conv)):  # type: ignore[misc]
        @property
        def weight(self) -> torch.Tensor:
            return self._parameters["weight"] * 0.5

    conv.__class__ = Halved
    return conv


def patched(conv: Any) -> Any:
    """A forward that an instance got afterwards, as deployment scripts do."""

    def forward(x: Any) -> Any:
        result = type(conv).forward(conv, x)
        return result.replace_feature(torch.relu(result.features))

    conv.forward = forward
    return conv


def hooked(conv: Any) -> Any:
    conv.register_forward_hook(
        lambda module, args, result: result.replace_feature(torch.relu(result.features))
    )
    return conv


LAYERS: dict[str, Any] = {
    "_conv_forward by position": lambda: Centred(4, 4, 3, bias=False),
    "_conv_forward by keyword": lambda: Scaled(4, 4, 3, 2, padding=1, bias=False),
    "forward around _conv_forward": lambda: Inner(4, 4, 3, bias=False),
    "forward around forward": lambda: Summed(4, 4, 3, bias=False),
    "SparseSequential": lambda: Blocks(spconv.SubMConv3d(4, 4, 3, bias=False), nn.BatchNorm1d(4)),
    "property": lambda: computed_weight(spconv.SubMConv3d(4, 4, 3, bias=False)),
    "instance": lambda: patched(spconv.SubMConv3d(4, 4, 3, bias=False)),
    "hook": lambda: hooked(spconv.SubMConv3d(4, 4, 3, bias=False)),
    "kernel of one offset": lambda: Centred(4, 4, 1, bias=False),
    "weight_norm": lambda: torch.nn.utils.parametrizations.weight_norm(
        spconv.SubMConv3d(4, 4, 3, bias=False)
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_an_override_is_captured_as_what_it_computes(case: str) -> None:
    torch.manual_seed(1)
    model = randomise(spconv.SparseSequential(spconv.SubMConv3d(4, 4, 3, bias=False), LAYERS[case]()))
    features, indices = frame()
    graph = capture(model, (sparse(features, indices),))
    assert_same_as_spconv(graph, model, features, indices)


class Grouped(spconv.SubMConv3d):
    """Two groups, each a convolution over half of the channels."""

    def forward(self, input: Any, add_input: Any = None) -> Any:
        halves = []
        for k in range(2):
            weight = self.weight[2 * k : 2 * k + 2, ..., 2 * k : 2 * k + 2].contiguous()
            self.in_channels = self.out_channels = 2
            part = input.replace_feature(input.features[:, 2 * k : 2 * k + 2])
            halves.append(self._conv_forward(self.training, part, weight, None).features)
            self.in_channels = self.out_channels = 4
        return input.replace_feature(torch.cat(halves, 1))


def test_an_override_that_groups_channels_is_several_layers() -> None:
    model = spconv.SparseSequential(
        spconv.SubMConv3d(4, 4, 3, bias=False), Grouped(4, 4, 3, bias=False)
    ).eval()
    args = frame()
    with torch.no_grad():
        found, _ = capture(model, (sparse(*args),))(*args)
        assert relative(found, model(sparse(*args)).features) < 1e-6


class OwnKernels(spconv.SubMConv3d):
    """Calls spconv's compiled code itself."""

    def forward(self, input: Any, add_input: Any = None) -> Any:
        spconv.ops.get_indice_pairs(
            input.indices, input.batch_size, input.spatial_shape, self.algo,
            self.kernel_size, self.stride, self.padding, self.dilation, self.output_padding, True,
        )  # fmt: skip
        return super().forward(input)


def test_spconvs_kernels_called_by_the_user_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CaptureError, match=r"spconv\.ops\.get_indice_pairs is called by other code"):
        capture(spconv.SparseSequential(OwnKernels(4, 4, 3, bias=False)).eval(), (sparse(*frame()),))
    assert capfd.readouterr() == ("", "")


def test_a_dense_that_somebody_replaced_is_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    original = spconv.SparseConvTensor.dense
    monkeypatch.setattr(spconv.SparseConvTensor, "dense", lambda self: original(self).permute(0, 1, 4, 3, 2))
    model = spconv.SparseSequential(spconv.SubMConv3d(4, 4, 3, bias=False), spconv.ToDense()).eval()
    features, indices = frame()
    with torch.no_grad():
        expected = model(sparse(features, indices))
    try:
        found = capture(model, (sparse(features, indices),))(features, indices)
    except CaptureError as error:
        # Either is right; a map of another layout is not.
        assert "is not supported" in str(error) or "changes a value in place" in str(error)
    else:
        assert relative(found, expected) <= 1e-5


def test_a_tensor_class_of_the_users_own() -> None:
    class Tensor(spconv.SparseConvTensor):
        def dense(self, channels_first: bool = True) -> Any:
            return super().dense(channels_first).flatten(1, 2)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = spconv.SubMConv3d(4, 4, 3, bias=False)

        def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
            x = self.conv(spconv.SparseConvTensor(features, indices, [9, 12, 13], 1))
            return Tensor(x.features, x.indices, x.spatial_shape, x.batch_size).dense()

    model, (features, indices) = Model().eval(), frame()
    graph = capture(model, (features, indices))
    assert [layer.kind for layer in layers(graph)] == ["convolution", "scatter_dense", "reshape"]
    with torch.no_grad():
        expected = model(features, indices)
    assert relative(graph(features, indices), expected) <= 1e-5


def test_a_function_in_the_place_of_spconvs_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    base = spconv.conv.SparseConvolutionBase
    original = base._conv_forward

    def logged(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    monkeypatch.setattr(base, "_conv_forward", logged)
    model = spconv.SparseSequential(spconv.SubMConv3d(4, 4, 3, bias=False)).eval()
    with pytest.raises(CaptureError, match=r"Layer '0' \(SubMConv3d\) runs .*logged, .* Put that one back"):
        capture(model, (sparse(*frame()),))
    assert capfd.readouterr() == ("", "")


def test_a_relu_of_the_dense_map_is_named() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = spconv.SubMConv3d(4, 4, 3, bias=False), nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.act(self.conv(x).dense())

    with pytest.raises(CaptureError, match=r"relu in module 'act' \(ReLU\) .* on the features before dense"):
        capture(Model().eval(), (sparse(*frame()),))
