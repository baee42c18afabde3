# SPDX-License-Identifier: Apache-2.0
"""The one description of what an operator that makes a kernel map is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scn_fx.errors import SiteError
from scn_fx.geometry import MOST_SITES, ConvGeometry
from scn_fx.operators.spec import OperatorSpec
from scn_fx.operators.table import OPERATORS

__all__ = ["MapCall"]


@dataclass(frozen=True)
class MapCall:
    """A map over sites of the grid `geometry.input_spatial_shape`.

    Attributes:
        name: the layer that messages name.
        batch_size: number of grids.
        geometry: which site reads which.
        output_bound: most output sites.
    """

    name: str
    batch_size: int
    geometry: ConvGeometry
    output_bound: int = MOST_SITES

    @classmethod
    def of(cls, spec: OperatorSpec, arguments: dict[str, Any]) -> MapCall:
        """From the keyword arguments of an operator; SiteError with the layer's name for impossible ones."""
        assert spec.map is not None
        numbers = tuple(
            (key, tuple(arguments[key]) if isinstance(arguments[key], list | tuple) else arguments[key])
            for key in spec.map.numbers
            if key in arguments
        )
        name = arguments["name"]
        try:
            geometry = _geometry(spec.name, numbers)
        except SiteError as error:
            raise SiteError(f"Layer {name!r}: {error}") from error
        return cls(name, arguments["batch_size"], geometry, arguments.get("output_bound", MOST_SITES))


@lru_cache(maxsize=1024)  # a graph asks for the same few at each run
def _geometry(operator: str, numbers: tuple[tuple[str, Any], ...]) -> ConvGeometry:
    rule = OPERATORS[operator].map
    assert rule is not None and rule.geometry is not None
    return rule.geometry(**dict(numbers))
