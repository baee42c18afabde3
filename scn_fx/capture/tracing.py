# SPDX-License-Identifier: Apache-2.0
"""What one capture knows while the model's forward runs: names of its layers, rulebooks, kernel maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from scn_fx.errors import CaptureError
from scn_fx.geometry import ConvGeometry

__all__ = ["KernelMap", "Tracing", "same_tensor"]


@dataclass(frozen=True)
class KernelMap:
    """A kernel map in the traced program; kept in spconv's `indice_dict` under its `indice_key`.

    Attributes:
        value: the map, int32 [M, K].
        rulebook: its name in the graph.
        geometry: what it was made for.
        indices: input sites, int32 [N, ndim + 1].
        out_indices: output sites, int32 [M, ndim + 1]; the same object for a submanifold map.
    """

    value: torch.Tensor
    rulebook: str
    geometry: ConvGeometry
    indices: torch.Tensor
    out_indices: torch.Tensor

    @property
    def ndim(self) -> int:
        """Dimensions of the layers that read it."""
        return int(self.indices.shape[1]) - 1

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"spconv's rulebook has no {name!r} while a model is captured: kernel maps are values of the "
            "graph. Leave what reads indice_dict outside."
        )


@dataclass
class Tracing:
    """State of one capture.

    Attributes:
        model: the captured model.
        output_bound: most sites that any layer may have.
        axes: order of the spatial columns, "zyx" or "xyz".
        reassigned: names of tensor attributes and buffers that the forward gave another tensor.
        outputs: paths of the tensors that the forward returns, with descriptions.
        selected: how many tensors each chosen output has: 1, or 2 for features with their indices.
        batch_size: that of the frames, where the forward computes it from them; None if it does not.
        spatial_shape: their grid, in the order of the index columns; as batch_size.
        begin: path of the module after which the captured part begins, and steps into what it returns.
        began: how often that module has run.
        wanted: paths of modules whose value may be an output.
        returned: what these returned, at their last call.
        ends: paths of the modules that returned a sparse tensor, the last one last.
        refusal: why an output cannot be captured, None if it can; None where nobody can say.
        stopped: what the forward raised after all outputs were known.
        notes: what the user should know of the trace, a sentence each.
        entries: indices that the forward made sparse tensors of, and what stands for them in the graph.
    """

    model: nn.Module
    output_bound: int
    axes: str
    reassigned: set[str] = field(default_factory=set)
    outputs: list[tuple[tuple[Any, ...], str]] = field(default_factory=list)
    selected: list[int] = field(default_factory=list)
    batch_size: int | None = None
    spatial_shape: tuple[int, ...] | None = None
    begin: tuple[Any, ...] | None = None
    began: int = 0
    wanted: frozenset[str] = frozenset()
    returned: dict[str, Any] = field(default_factory=dict)
    ends: dict[str, None] = field(default_factory=dict)
    refusal: Callable[[tuple[Any, ...]], CaptureError | None] | None = None
    stopped: Exception | None = None
    notes: list[str] = field(default_factory=list)
    entries: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    _paths: dict[int, str] = field(init=False)
    _aliases: dict[str, str] = field(default_factory=dict)
    _layers: set[str] = field(default_factory=set)
    _rulebooks: set[str] = field(default_factory=set)
    _strided: list[KernelMap] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A module may be registered under several names. torch.export then hands out stand-ins, one for each
        # name, that share the attributes of the module but are other objects: the dict of attributes is what
        # identifies it. All of its layers are named after the first path, as `named_modules` gives it.
        self._paths = {id(module.__dict__): path for path, module in self.model.named_modules()}

    def want(self, names: Iterable[Any]) -> None:
        """Keep what modules of these paths return; names that are no paths of modules are left out."""
        known = {path for path, _ in self.model.named_modules(remove_duplicate=False) if path}
        self._aliases = {
            name: self.canonical(name) for name in names if isinstance(name, str) and name in known
        }
        self.wanted = frozenset(self._aliases.values())

    def keep(self, path: str, value: Any) -> None:
        """Remember what a wanted module has returned, under every name that it was wanted by."""
        self.returned.update({name: value for name, own in self._aliases.items() if own == path})

    @property
    def paths(self) -> frozenset[str]:
        """Paths of all modules of the model."""
        return frozenset(self._paths.values())

    def registered(self, module: nn.Module) -> bool:
        """Whether the module is part of the model; others are made while the forward runs."""
        return id(module.__dict__) in self._paths

    def path(self, module: nn.Module) -> str:
        """Path of a module in the model; empty for the model itself."""
        return self._paths.get(id(module.__dict__), f"unregistered.{type(module).__name__}")

    def canonical(self, path: str) -> str:
        """The path that names a module, for one of the paths under which the model reaches it."""
        try:
            return self.path(self.model.get_submodule(path))
        except AttributeError:
            return path

    def describe(self, module: nn.Module) -> str:
        """A module in words, for messages: path and class."""
        name, path = type(module).__name__, self.path(module)
        if not self.registered(module):
            return f"{name} (not registered in the model)"
        return f"{path!r} ({name})" if path else f"the model itself ({name})"

    def layer_name(self, module: nn.Module) -> str:
        """A unique name for one call of a convolution: its path, numbered where a module is called again."""
        own = self.path(module) or type(module).__name__
        name, count = own, 0
        # A number may not make the name of another module, which may come later.
        while name in self._layers or (name != own and name in self.paths):
            count += 1
            name = f"{own}_{count}"
        self._layers.add(name)
        return name

    def rulebook(self, stem: str) -> str:
        """A unique name for a kernel map, from an `indice_key` or a layer's name.

        Two branches of a network may use one key for different maps; spconv keeps them apart, so must we.
        """
        name, count = stem, 0
        while name in self._rulebooks:
            count += 1
            name = f"{stem}_{count}"
        self._rulebooks.add(name)
        return name

    def strided(self, indices: torch.Tensor, geometry: ConvGeometry) -> KernelMap | None:
        """The map that this geometry already made over these sites.

        Two strided convolutions over the same sites have the same output sites, and their results may be
        added; that shows in the graph only if they share the map.
        """
        for known in self._strided:
            if same_tensor(known.indices, indices) and known.geometry == geometry:
                return known
        return None

    def made_sites(self, indices: torch.Tensor) -> bool:
        """Whether a layer has made these sites."""
        return any(same_tensor(known.out_indices, indices) for known in self._strided)

    def remember(self, made: KernelMap) -> None:
        """Let `strided` find the map."""
        self._strided.append(made)


def same_tensor(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of a trace are one: the same memory, read the same way.

    A cast to the dtype a tensor has, `contiguous()`, `detach()` and their like give a new Python object for
    the same tensor.
    """
    if a is b:
        return True
    return (
        a.untyped_storage()._cdata == b.untyped_storage()._cdata
        and a.dtype == b.dtype
        and str(a.shape) == str(b.shape)  # sizes may be symbols, which cannot all be compared
        and str(a.stride()) == str(b.stride())
        and str(a.storage_offset()) == str(b.storage_offset())
    )
