# SPDX-License-Identifier: Apache-2.0
"""The peer: the same encoder in spconv itself, on the CPU.

spconv's CPU convolutions have neither bias nor activation, fp16 nor int8. So the peer runs in float32, with
the weights that BatchNorm is folded into and without their bias, ReLUs and residual sums as torch operators:
the same sites, kernel maps and products, and a little less work than the engine does.

With more than one thread the results of spconv 2.3.8's CPU build vary, because its scatter races. Its times
are what they are; its results are not compared here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.bench.model import ModelFiles
from scn_fx.errors import ArgumentError, MissingPackageError
from scn_fx.exporting import quiet
from scn_fx.files.arrays import open_npz

__all__ = ["Peer", "SpconvPeer", "folded_encoder"]


def folded_encoder(files: ModelFiles) -> Any:
    """CenterPoint's encoder in spconv with the weights of `files`, an Identity for each BatchNorm, no bias.

    Raises ArgumentError if the weights have another shape than spconv's.
    """
    import spconv.pytorch as spconv
    import torch

    from scn_fx.zoo import CenterPointEncoder

    with open_npz(files.weights, ArgumentError) as archive:
        weights = {name: torch.from_numpy(archive[name]) for name in archive.names}
    width = next(iter(weights.values())).shape[-1]
    model = CenterPointEncoder(width, files.channels, grid=files.grid, bias=False).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.BatchNorm1d):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, torch.nn.Identity())
        elif isinstance(module, spconv.SubMConv3d | spconv.SparseConv3d):
            if tuple(module.weight.shape) != tuple(weights[name].shape):
                raise ArgumentError(
                    f"{name} has weights {list(weights[name].shape)} in {files.weights}, but spconv made "
                    f"{list(module.weight.shape)}. Remove the folder and run again."
                )
            module.weight = torch.nn.Parameter(weights[name], requires_grad=False)
    return model


class Peer:
    """CenterPoint's encoder in spconv, which runs the frame of `load`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._arguments: tuple[Any, ...] | None = None

    def load(self, features: Any, indices: Any, batch_size: int = 1) -> None:
        """Take the frame to run: tensors [N, C] and int32 [N, 4], where the model lies and in its dtype."""
        self._arguments = self._model.arguments(features, indices, batch_size)

    def run(self) -> Any:
        """The dense map [batch size, C, H, W] of the loaded frame."""
        import torch

        if self._arguments is None:
            raise ArgumentError("Give the peer a frame with load(features, indices) first.")
        # quiet: spconv's dense() indexes in a way that torch deprecates
        with quiet(), torch.inference_mode():
            return self._model(*self._arguments)[0]


class SpconvPeer(Peer):
    """In float32, on the CPU; `peer(threads)` runs the frame of `load`.

    Raises MissingPackageError without torch or spconv.
    """

    def __init__(self, files: ModelFiles) -> None:
        try:
            import spconv.pytorch as spconv
            import torch
            from spconv.core import ConvAlgo
        except ModuleNotFoundError as error:
            raise MissingPackageError.of("spconv", "spconv-cpu", "The comparison with spconv") from error
        super().__init__(folded_encoder(files))
        for module in self._model.modules():
            if isinstance(module, spconv.SubMConv3d | spconv.SparseConv3d):
                module.algo = ConvAlgo.Native  # the only one of the CPU build
        self._torch: Any = torch

    def load(self, features: npt.NDArray[Any], indices: npt.NDArray[np.int32], batch_size: int = 1) -> None:
        """Take the frame to run: features [N, C], indices int32 [N, 4]."""
        arrays = (features.astype(np.float32), np.asarray(indices))
        tensors = [self._torch.from_numpy(array) for array in arrays]
        super().load(tensors[0], tensors[1], batch_size)

    def __call__(self, threads: int) -> Any:
        """The dense map of the loaded frame, computed on `threads` threads."""
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(threads)
        try:
            return self.run()
        finally:
            self._torch.set_num_threads(before)
