# SPDX-License-Identifier: Apache-2.0
"""What the project knows of an operator: one `OperatorSpec`, and the small values that it is made of.

Passes, verification, `scn_fx.graph.Layer`, quantisation, export, the reference of comparisons and `scn-fx
inspect` ask the spec. Nothing here imports torch, so that those who only read files need none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scn_fx.geometry import ConvGeometry

if TYPE_CHECKING:
    from scn_fx.operators.activations import Activation
    from scn_fx.operators.aten import AtenRule
    from scn_fx.operators.onnx_form import OnnxForm

__all__ = ["GridRule", "Kind", "MapRule", "MapSide", "Operand", "OperatorSpec", "Range", "Sites"]


class Kind(Enum):
    """What a value is."""

    FEATURES = "features"
    """Float [N, C], a row per site."""
    DENSE = "dense"
    """A dense map, or a rearranged one."""
    SITES = "sites"
    """Indices, int32 [N, 4]."""
    MAP = "map"
    """A kernel map, int32 [M, K]."""
    PARAMETER = "parameter"
    """A weight or bias of the model."""


class Sites(Enum):
    """Which sites the result of a layer lies on."""

    SAME = "same"
    """Those of its operands, which all lie on the same."""
    MAP = "map"
    """Those that its kernel map writes; its features lie on those that the map reads."""
    DENSE = "dense"
    """None: the result is a dense map."""


class MapSide(Enum):
    """Where a map operator takes one side of its map from."""

    OPERAND = "operand"
    """The sites among its operands."""
    EACH = "each"
    """All sites among its operands: a column of the map reads each of them."""
    NEW = "new"
    """Sites that it makes: its first result."""
    PARTNER = "partner"
    """The sites that the map among its operands writes."""


@dataclass(frozen=True)
class Operand:
    """One positional operand of an operator.

    Attributes:
        name: in the schema.
        kind: what it is.
        many: whether it is a list of such values.
        optional: whether it may be None.
    """

    name: str
    kind: Kind
    many: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Range:
    """A dynamic range that an int8 layer needs.

    Attributes:
        attribute: the keyword argument, and the attribute in files.
        operand: which operand's. Of a list, the argument holds a range for each.
        per_channel: whether there is one for each output channel.
    """

    attribute: str
    operand: str
    per_channel: bool = False


@dataclass(frozen=True)
class MapRule:
    """How an operator makes a kernel map. Geometry, rulebook and bound of layers are their map's.

    Attributes:
        reads, writes: where the sites on both sides come from.
        geometry: from the arguments called `numbers` to a geometry; None for the partner's turned round.
        numbers: names of those arguments.
        item: which of several results is the map; None where it is the only one.
    """

    reads: MapSide
    writes: MapSide
    geometry: Callable[..., ConvGeometry] | None = None
    numbers: tuple[str, ...] = ()
    item: int | None = None


@dataclass(frozen=True)
class GridRule:
    """Which argument says on which grid the operand sites lie.

    Attributes:
        argument: its name.
        larger: whether it may be a larger grid than that of the sites.
        made: the argument with the grid of sites that the operator makes, if it makes any.
    """

    argument: str
    larger: bool = False
    made: str | None = None


@dataclass(frozen=True, kw_only=True)
class OperatorSpec:
    """One operator ``scn_fx::name``.

    Attributes:
        name: its name, which is the kind of the layers that it computes.
        schema: operands, keyword arguments and results, as `torch.library` writes them.
        operands: the positional operands, in the order of the schema.
        gives: what its results are.
        sites: which sites its result lies on; None for an operator that computes no features.
        map: how it makes a kernel map, if it does.
        grid: which argument says the grid of its sites, if one does.
        ranges: what has a range, in the order of the operands; none: it has no precision either.
        activation: the activation that it is, if it is one. (One that can do an activation as well has
            arguments `activation` and `activation_parameter`, see `fuses`.)
        adds: whether its result is the sum of its operands.
        joins: whether its channels are those of all its operands together.
        avoidable: whether capture can write it with other operators, which it does for dialects without it.
        aten: which calls of aten operators, by name, are this operator; see `scn_fx.operators.aten`.
        advice: what errors say about such a call that is none.
        suffix: what follows the module's path in the name of a layer; empty: capture has named it.
        modules: classes of modules that are this operator and lend a layer their own path.
        node_suffix: what follows the layer's name in the name of a torch.fx node.
        onnx: its node in files; None: it leaves nothing there.
        lowerings: by dialect, what the view makes of a layer in place of that node; see `scn_fx.onnx.view`.
    """

    name: str
    schema: str
    operands: tuple[Operand, ...]
    gives: tuple[Kind, ...]
    sites: Sites | None = None
    map: MapRule | None = None
    grid: GridRule | None = None
    ranges: tuple[Range, ...] = ()
    activation: Activation | None = None
    adds: bool = False
    joins: bool = False
    avoidable: bool = False
    aten: Mapping[str, AtenRule] = field(default_factory=lambda: MappingProxyType({}))
    advice: str = ""
    suffix: str = ""
    modules: tuple[str, ...] = ()
    node_suffix: str = ""
    onnx: OnnxForm | None = None
    lowerings: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def layer(self) -> bool:
        """Whether it computes features or a dense map; the others make sites and kernel maps."""
        return self.sites is not None

    @property
    def fuses(self) -> bool:
        """Whether it can do an activation on the way out."""
        return bool(re.search(r"\bstr activation\b", self.schema))

    @property
    def weighted(self) -> bool:
        """Whether it has a weight, `weight` [out, …, in], and a bias."""
        return any(operand.kind is Kind.PARAMETER for operand in self.operands)

    @property
    def quantisable(self) -> bool:
        """Whether it has a precision, and ranges for int8."""
        return bool(self.ranges)

    @property
    def passes_on(self) -> bool:
        """Whether it hands on features as it got them, row by row, without a precision of its own."""
        return self.sites is Sites.SAME and not self.quantisable

    def belongs(self, dialect: str) -> bool:
        """Whether capture for a dialect leaves it as it is."""
        return not self.avoidable or self.onnx is None or dialect in self.onnx.dialects

    @property
    def rearranges(self) -> bool:
        """Whether it only moves the values of a dense map."""
        return self.operands[0].kind is Kind.DENSE

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The operands that layers compute: features and dense maps."""
        return tuple(o for o in self.operands if o.kind in (Kind.FEATURES, Kind.DENSE))

    @property
    def input_ranges(self) -> tuple[Range, ...]:
        """The ranges of `inputs`, in their order."""
        return tuple(each for each in self.ranges if not each.per_channel)

    @property
    def weight_range(self) -> Range | None:
        """The range per output channel, if it has one."""
        return next((each for each in self.ranges if each.per_channel), None)

    def position(self, kind: Kind) -> int | None:
        """Position of the first operand of a kind, or None."""
        return next((i for i, operand in enumerate(self.operands) if operand.kind is kind), None)
