# SPDX-License-Identifier: Apache-2.0
"""The peers: the same network in spconv, as users run it, and with what can be fused in it fused.

"eager" is the model in evaluation mode, BatchNorms and ReLUs as torch operators. "folded" is what somebody
makes of it who wants speed: BatchNorm in the weights, on a GPU the ReLUs in the convolutions. As in
`scn_fx.bench.peer` it leaves out the biases that BatchNorm would give: less work, and other results.

On the CPU both run in float32 on one thread, because the scatter of spconv 2.3.8's CPU build races; on a GPU
in float16.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from benchmarks.models.eager import chosen
from scn_fx.bench.gpu.peer import fuse_activations
from scn_fx.errors import ArgumentError
from scn_fx.exporting import quiet

__all__ = ["PEERS", "Peer", "fold_norms", "make_peer", "one_thread"]

PEERS = ("eager", "folded")


class Peer:
    """A network of spconv and its frame, both where they run."""

    def __init__(self, model: Any, features: torch.Tensor, indices: torch.Tensor) -> None:
        self._model = model
        self._features, self._indices = features, indices

    def __call__(self) -> torch.Tensor:
        """The network's main output; on a GPU its work is enqueued."""
        # quiet: spconv's dense() indexes in a way that torch deprecates
        with quiet(), torch.inference_mode():
            made = self._model(*self._model.arguments(self._features, self._indices))
        found: torch.Tensor = chosen(made, self._model.main_output)
        return found


def make_peer(kind: str, model: Any, features: torch.Tensor, indices: torch.Tensor) -> Peer:
    """One of `PEERS` for the frame, on its device and in its dtype. `model` stays as it is.

    Raises ArgumentError on a GPU if the installed spconv has no CUDA.
    """
    from spconv.core import ConvAlgo
    from spconv.cppconstants import CPU_ONLY_BUILD
    from spconv.pytorch.conv import SparseConvolution

    made = copy.deepcopy(model)
    if kind == "folded":
        fold_norms(made)
    if features.is_cuda:
        if CPU_ONLY_BUILD:
            raise ArgumentError("The installed spconv has no CUDA.")
        if kind == "folded":
            fuse_activations(made)
    else:
        for module in made.modules():
            if isinstance(module, SparseConvolution):
                module.algo = ConvAlgo.Native  # the only one that runs on the CPU
    return Peer(made.to(features.device, features.dtype), features, indices)


def fold_norms(model: nn.Module) -> None:
    """Scale the weights by the BatchNorms behind them, and put an Identity in their places (in place)."""
    import spconv.pytorch as spconv
    from spconv.pytorch.conv import SparseConvolution

    for module in list(model.modules()):
        if isinstance(module, spconv.SparseSequential):
            before: Any = None
            for name, child in list(module.named_children()):
                if isinstance(child, nn.BatchNorm1d):
                    _fold(before, child)
                    setattr(module, name, nn.Identity())
                before = child if isinstance(child, SparseConvolution) else None
        elif hasattr(module, "bn1"):
            for number in "12":
                _fold(getattr(module, f"conv{number}"), getattr(module, f"bn{number}"))
                setattr(module, f"bn{number}", nn.Identity())


def _fold(convolution: Any, norm: nn.BatchNorm1d) -> None:
    variance: Any = norm.running_var
    scale = (norm.weight / torch.sqrt(variance + norm.eps)).detach()
    weight = convolution.weight.detach()
    if convolution.conv1x1:  # spconv reads the numbers of these as [in, out], whatever shape it stores
        scaled = (weight.view(convolution.in_channels, convolution.out_channels) * scale).view_as(weight)
    else:
        scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    convolution.weight = nn.Parameter(scaled, requires_grad=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch, and spconv's CPU build with it, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
