# SPDX-License-Identifier: Apache-2.0
"""How detectors call their sparse encoder, and what they expect of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from scn_fx.errors import ArgumentError, MissingPackageError

__all__ = ["INTERFACES", "Call", "DenseOutput", "Interface", "SparseOutput", "find_interface"]


@dataclass(frozen=True)
class Call:
    """What an engine needs of a call: features [N, C], indices [N, ndim + 1], number of samples or None."""

    features: Any
    indices: Any
    batch_size: Any = None


@dataclass(frozen=True)
class DenseOutput:
    """A dense map [B, C, D, H, W], or [B, C · D, H, W] where the file folds D into the channels.

    `stride` is how many voxels of the input a cell spans along y.
    """

    values: Any
    stride: int

    def plain(self) -> Any:
        """The tensor."""
        return self.values

    def encoded(self) -> Any:
        """Something whose `dense()` is the map with five axes, as that of a sparse tensor."""
        return _Densified(self.values.unsqueeze(2) if self.values.dim() == 4 else self.values)


@dataclass(frozen=True)
class SparseOutput:
    """A sparse result: features [M, C], indices int32 [M, ndim + 1], the grid as indices count it, samples.

    `stride` is as that of a `DenseOutput`.
    """

    features: Any
    indices: Any
    spatial_shape: tuple[int, ...]
    batch_size: int
    stride: int

    def plain(self) -> Any:
        """A `spconv.pytorch.SparseConvTensor`.

        Raises:
            MissingPackageError: spconv is not installed.
        """
        try:
            from spconv.pytorch import SparseConvTensor
        except ModuleNotFoundError as error:
            if error.name not in ("spconv", "spconv.pytorch"):
                raise
            raise MissingPackageError.of("spconv", "spconv-cpu", "A sparse result for spconv") from error
        return SparseConvTensor(self.features, self.indices, list(self.spatial_shape), self.batch_size)

    encoded = plain


class _Densified:
    """A dense map in the place of the sparse tensor that it came from."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def dense(self) -> Any:
        return self._values


@dataclass(frozen=True)
class Interface:
    """A detector's way to call the module that an engine stands in for.

    Args:
        take: is called with the arguments of `forward`, and returns a `Call`.
        give: is called with the results and the arguments of `forward`, and returns what `forward` returns.
            A result is a `DenseOutput` or a `SparseOutput`; a file of several outputs has a tuple of them.
    """

    take: Callable[..., Call]
    give: Callable[..., Any]


def _take_arguments(features: Any, indices: Any, batch_size: Any = None, *_: Any, **__: Any) -> Call:
    return Call(features, indices, batch_size)


def _give_plain(results: Any, *_: Any, **__: Any) -> Any:
    return tuple(r.plain() for r in results) if isinstance(results, tuple) else results.plain()


def _give_centerpoint(results: Any, *_: Any, **__: Any) -> Any:
    # its detectors unpack a pair, and drop the second unless they ask for levels in between
    return _give_plain(results), {}


def _take_batch_dict(batch_dict: Any) -> Call:
    wanted = ("voxel_features", "voxel_coords", "batch_size")
    if not isinstance(batch_dict, dict) or any(key not in batch_dict for key in wanted):
        got = (
            f"a dict with {sorted(batch_dict)}" if isinstance(batch_dict, dict) else type(batch_dict).__name__
        )
        raise ArgumentError(
            f"interface 'openpcdet' expects one dict with {', '.join(wanted)}, got {got}. Pass "
            "interface= the one that fits your detector, or an Interface of your own."
        )
    return Call(*(batch_dict[key] for key in wanted))


def _give_batch_dict(results: Any, batch_dict: dict[str, Any]) -> dict[str, Any]:
    if isinstance(results, tuple):
        raise ArgumentError(
            f"interface 'openpcdet' expects a file of one output, the encoded tensor, got {len(results)}. "
            "Export that output alone, or pass an Interface whose `give` places them."
        )
    batch_dict["encoded_spconv_tensor"] = results.encoded()
    batch_dict["encoded_spconv_tensor_stride"] = results.stride
    return batch_dict


INTERFACES: Mapping[str, Interface] = MappingProxyType(
    {
        "arguments": Interface(_take_arguments, _give_plain),
        "centerpoint": Interface(_take_arguments, _give_centerpoint),
        "mmdetection3d": Interface(_take_arguments, _give_plain),
        "openpcdet": Interface(_take_batch_dict, _give_batch_dict),
    }
)
"""By name. All but openpcdet take (features, indices, batch_size, …) and leave what follows alone."""


def find_interface(interface: str | Interface) -> Interface:
    """The interface of a name, or itself.

    Raises:
        ArgumentError: there is none of that name.
    """
    if isinstance(interface, Interface):
        return interface
    if not isinstance(interface, str) or interface not in INTERFACES:
        raise ArgumentError(
            f"interface must be one of {', '.join(INTERFACES)} or an Interface, got {interface!r}."
        )
    return INTERFACES[interface]
