# SPDX-License-Identifier: Apache-2.0
"""The peer on a GPU: the same encoder in spconv's CUDA build, in float16.

BatchNorm is folded into the weights, without bias, and ReLUs are fused into the convolutions; the residual
sums and their ReLUs are torch operators, because spconv fuses those in int8 only. Without the biases it does
a little less work than the engine.
"""

from __future__ import annotations

from typing import Any

from scn_fx.bench.model import ModelFiles
from scn_fx.bench.peer import Peer, folded_encoder
from scn_fx.errors import ArgumentError, MissingPackageError

__all__ = ["SpconvGpuPeer"]


class SpconvGpuPeer(Peer):
    """In float16, on a GPU; a call enqueues the frame of `load` on the current stream.

    Raises MissingPackageError without spconv, ArgumentError if the installed one has no CUDA.
    """

    def __init__(self, files: ModelFiles, device: str) -> None:
        try:
            from spconv.cppconstants import CPU_ONLY_BUILD
        except ModuleNotFoundError as error:
            raise MissingPackageError.of(
                "spconv-cu118", "spconv-cu118", "The comparison with spconv"
            ) from error
        if CPU_ONLY_BUILD:
            raise ArgumentError("The installed spconv has no CUDA.")
        super().__init__(fuse_activations(folded_encoder(files)).half().to(device))

    def __call__(self) -> Any:
        """The dense map of the loaded frame."""
        return self.run()


def fuse_activations(model: Any) -> Any:
    """A model of `scn_fx.zoo` without BatchNorms, its ReLUs put into the convolutions (in place).

    Nothing is left where ReLUs and Identities were.
    """
    import spconv.pytorch as spconv
    import torch
    from cumm import tensorview as tv

    from scn_fx.zoo.blocks import ResidualBlock
    from scn_fx.zoo.spunet import BasicBlock

    relu = tv.gemm.Activation.ReLU

    class FusedBlock(spconv.SparseModule):
        def __init__(self, block: Any) -> None:
            super().__init__()
            self.conv1, self.conv2 = block.conv1, block.conv2
            self.conv1.act_type = relu
            self.proj = getattr(block, "proj", None)

        def forward(self, x: Any) -> Any:
            out = self.conv2(self.conv1(x))
            before = x if self.proj is None else self.proj(x)
            return out.replace_feature((out.features + before.features).relu_())

    for sequence in [module for module in model.modules() if isinstance(module, spconv.SparseSequential)]:
        before: Any = None
        for name, module in list(sequence.named_children()):
            if isinstance(module, ResidualBlock | BasicBlock):
                setattr(sequence, name, FusedBlock(module))
            elif isinstance(module, torch.nn.Identity | torch.nn.ReLU):
                delattr(sequence, name)
                if isinstance(module, torch.nn.ReLU):
                    before.act_type = relu
            else:
                before = module
    return model
