# SPDX-License-Identifier: Apache-2.0
"""The example arguments: which tensors become inputs, how they are named, which sizes stay free."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scn_fx.capture.foreign import is_sparse_convolution
from scn_fx.capture.nesting import Leaf, flatten, rebuilt
from scn_fx.capture.packages import spconv
from scn_fx.dimensions import DIMENSIONS
from scn_fx.errors import CaptureError

__all__ = ["Arguments"]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class _Sparse:
    """Place of a SparseConvTensor among the leaves; its features and indices come from the graph's inputs."""

    spatial_shape: tuple[int, ...]
    batch_size: int


@dataclass(frozen=True)
class _Input:
    """Place of a tensor among the leaves."""


@dataclass(frozen=True)
class Arguments:
    """Arguments of a model's forward, split into tensors and constants.

    Attributes:
        tensors: the tensors in order; a SparseConvTensor gives its features, then its indices.
        names: a name for each, from the forward's parameters or the keys of a dict.
        leaves: all leaves of the arguments; tensors are marked.
        example: the arguments as given, positional and by keyword; says how the leaves nest.
        made_inside: whether the forward may make the indices itself.
    """

    tensors: tuple[torch.Tensor, ...]
    names: tuple[str, ...]
    leaves: tuple[Any, ...]
    example: tuple[tuple[Any, ...], dict[str, Any]]
    made_inside: bool = False

    @classmethod
    def of(
        cls,
        model: nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        made_inside: bool = False,
    ) -> Arguments:
        """Split the arguments; CaptureError where they hold no frame of at least two voxels.

        `made_inside` says that the forward may make the indices, of integer coordinates [N, 3] for instance.
        """
        if not isinstance(args, tuple | list):
            raise CaptureError(
                f"args must be a tuple of the positional arguments of {type(model).__name__}.forward, "
                f"got {type(args).__name__}. For a single argument write (argument,)."
            )
        example = (tuple(args), dict(kwargs or {}))
        parameters = _parameter_names(model)
        tensors: list[torch.Tensor] = []
        names: list[str] = []
        leaves: list[Any] = []
        for found in flatten(example):
            name, leaf = _name(found, parameters), found.value
            if isinstance(leaf, torch.Tensor):
                tensors.append(leaf.detach())
                names.append(name)
                leaves.append(_Input())
            elif isinstance(leaf, spconv().SparseConvTensor):
                tensors += [leaf.features.detach(), leaf.indices]
                names += [f"{name}_features", f"{name}_indices"]
                leaves.append(_Sparse(tuple(leaf.spatial_shape), int(leaf.batch_size)))
            else:
                _check_leaf(name, leaf)
                leaves.append(leaf)
        arguments = cls(tuple(tensors), _unique(names), tuple(leaves), example, made_inside)
        arguments._check()
        _check_signature(model, *example)
        return arguments

    def rebuild(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other tensors in place of the example's; containers are new."""
        rest = iter(tensors)
        leaves: list[Any] = []
        for leaf in self.leaves:
            if isinstance(leaf, _Input):
                leaves.append(next(rest))
            elif isinstance(leaf, _Sparse):
                features, indices = next(rest), next(rest)
                made = spconv().SparseConvTensor(features, indices, list(leaf.spatial_shape), leaf.batch_size)
                leaves.append(made)
            else:
                leaves.append(leaf)
        args, kwargs = rebuilt(self.example, iter(leaves))
        return args, kwargs

    def numbers(self) -> list[str]:
        """Names of tensors of one integer, which a forward cannot use as a Python number."""
        pairs = zip(self.names, self.tensors, strict=True)
        return [name for name, t in pairs if t.numel() == 1 and t.dtype not in _FLOATS]

    def dynamic_shapes(self) -> tuple[dict[int, Any] | None, ...]:
        """For each tensor its free dimensions, as torch.export takes them: the number of voxels.

        A named dimension, so that a model which depends on the example's number of voxels is refused.
        Tensors of another length (points, labels) are left to torch.export.
        """
        voxels = self._voxels()
        named = {count: torch.export.Dim(f"voxels_{count}", min=2) for count in voxels}
        shapes: list[dict[int, Any] | None] = []
        for tensor in self.tensors:
            if tensor.dim() == 0:
                shapes.append(None)
            else:
                shapes.append({0: named.get(int(tensor.shape[0]), torch.export.Dim.AUTO)})
        return tuple(shapes)

    @property
    def has_indices(self) -> bool:
        """Whether indices are among the arguments: [N, 4], or [N, 3] or [N, 2] of which none are made."""
        return bool(self._voxels_of(4)) or (not self.made_inside and bool(self._voxels()))

    def _voxels(self) -> set[int]:
        """Lengths of tensors that can be indices [N, 4], else [N, 3], else [N, 2], of features [N, …]."""
        found = (self._voxels_of(ndim + 1) for ndim in reversed(DIMENSIONS))
        return next((counts for counts in found if counts), set())

    def _voxels_of(self, columns: int) -> set[int]:
        counts: set[int] = set()
        for i, indices in enumerate(self.tensors):
            # Points [N, 3] and values per point are floats; of four columns, indices may come so too.
            whole = columns == 4 or indices.dtype not in _FLOATS
            if indices.dim() == 2 and indices.shape[1] == columns and whole:
                others = (t for j, t in enumerate(self.tensors) if j != i and t.dim() >= 2)
                counts |= {len(t) for t in others if t.dtype in _FLOATS and len(t) == len(indices)}
        return counts

    def _check(self) -> None:
        counts = self._voxels()
        if not counts:
            shapes = ", ".join(
                f"{name} {str(t.dtype).removeprefix('torch.')} {list(t.shape)}"
                for name, t in zip(self.names, self.tensors, strict=True)
            )
            arrays = [type(leaf).__name__ for leaf in self.leaves if type(leaf).__module__ == "numpy"]
            hint = ""
            if "ndarray" in arrays:
                hint = " Pass numpy arrays of the frame as torch.from_numpy(array)."
            elif self._voxels_of(columns=5):
                hint = (
                    " Indices [N, 5] belong to a 4D network; those of 1, 2 and 3 dimensions are supported. "
                    "Use a 3D one with the fourth axis among the features or as samples of the batch."
                )
            elif self.tensors:
                hint = (
                    " Voxelising points is not part of the graph: capture the sparse encoder, with the "
                    "voxels' features and indices that its forward takes."
                )
            raise CaptureError(
                "args must hold an example frame: features float32 [N, C] and indices int32 [N, 4] (of a 2D "
                "network [N, 3], of a 1D one [N, 2]) as torch tensors of equal length, got "
                f"{shapes or 'no tensors'}.{hint}"
            )
        if max(counts) < 2:
            raise CaptureError(
                f"The example frame has {max(counts)} voxel(s); torch.export would take that number as a "
                "constant. Give an example of at least 2 voxels; the graph then takes any number."
            )


def _check_signature(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The forward must take the arguments as they are given."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        only = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
        hint = f" Pass {', '.join(only)} by keyword: kwargs={{…}}." if only else ""
        raise CaptureError(
            f"{type(model).__name__}.forward{signature} cannot take the given arguments ({len(args)} "
            f"positional{', ' + ', '.join(kwargs) if kwargs else ''}): {error}.{hint}"
        ) from error


def _check_leaf(name: str, leaf: Any) -> None:
    """Refuse values that hold a frame in a form that capture does not see."""
    library = is_sparse_convolution(leaf)
    if library is not None:
        raise CaptureError(
            f"Argument {name!r} is a {type(leaf).__name__} of {library}; capture takes models and tensors of "
            "spconv 2.x (spconv.pytorch)."
        )
    attributes = getattr(leaf, "__dict__", None)
    held = [k for k, v in (attributes or {}).items() if isinstance(v, torch.Tensor)]
    if held and not isinstance(leaf, nn.Module | type):
        raise CaptureError(
            f"Argument {name!r} is a {type(leaf).__name__} that holds tensors ({', '.join(held[:4])}), which "
            "capture cannot see there. Pass tensors, or tuples, lists, dicts and dataclasses of them; a "
            "wrapper module may build the object in its forward."
        )


def _parameter_names(model: nn.Module) -> list[str]:
    """Names of the forward's positional parameters."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _name(leaf: Leaf, parameters: list[str]) -> str:
    """Name of a leaf: its parameter and what follows; the keys alone inside a dict."""
    given, first, *rest = leaf.path  # ("args" or "kwargs" as 0 or 1), position or keyword, the way inside
    if given == 0:
        position = int(first)
        first = parameters[position] if position < len(parameters) else f"arg_{position}"
    keys = [str(step) for step, kind in zip(rest, leaf.kinds[2:], strict=True) if kind == "key"]
    text = "_".join(keys) if keys else "_".join(str(step) for step in (first, *rest))
    text = re.sub(r"\W", "_", text)
    return text if re.match(r"[A-Za-z]", text) else f"arg_{text}"


def _unique(names: list[str]) -> tuple[str, ...]:
    result: list[str] = []
    for name in names:
        count, chosen = 0, name
        while chosen in result:
            count += 1
            chosen = f"{name}_{count}"
        result.append(chosen)
    return tuple(result)
