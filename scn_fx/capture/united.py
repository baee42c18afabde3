# SPDX-License-Identifier: Apache-2.0
"""What spconv's sums of tensors on different sites do while they are captured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.capture.packages import spconv
from scn_fx.capture.tracing import Tracing, same_tensor
from scn_fx.capture.unsupported import stand_in
from scn_fx.dimensions import lifted
from scn_fx.operators.union import MOST_PARTS

__all__ = ["united"]


def united(tracing: Tracing, tensors: Sequence[Any], what: str) -> Any:
    """The sum of SparseConvTensors wherever one of them has a site, as a SparseConvTensor.

    Sites ascend, where spconv has them in the order of its hash table, and no inverse convolution can go back
    behind the sum. Tensors that are known to lie on the same sites are added row by row.

    Args:
        tracing: the capture in progress.
        tensors: one or more.
        what: the function or module, for messages.
    """
    first = tensors[0]
    reason = _reason(tensors, what)
    if reason is not None:
        return stand_in(first, reason, first.features.shape[1])
    values = [tensor.features for tensor in tensors]
    if all(same_tensor(tensor.indices, first.indices) for tensor in tensors):
        return first.replace_feature(sum(values[1:], values[0]))
    shape, batch = list(first.spatial_shape), int(first.batch_size)
    indices, union_map = torch.ops.scn_fx.union_map.default(
        [tensor.indices for tensor in tensors],
        name="",  # known to the naming pass, from the module that calls
        batch_size=batch,
        spatial_shape=lifted(shape, 1),
        output_bound=tracing.output_bound,
    )
    features = torch.ops.scn_fx.union.default(values, union_map, name="")
    return spconv().SparseConvTensor(features, indices, shape, batch)


def _reason(tensors: Sequence[Any], what: str) -> str | None:
    """Why tensors cannot be added, None if they can."""
    if len(tensors) > MOST_PARTS:
        return (
            f"{what} adds {len(tensors)} tensors, and {MOST_PARTS} are the most. Add them in several steps."
        )
    first = tensors[0]
    for other in tensors[1:]:
        for name, mine, theirs in (
            ("grid", list(first.spatial_shape), list(other.spatial_shape)),
            ("batch size", int(first.batch_size), int(other.batch_size)),
            ("width", int(first.features.shape[1]), int(other.features.shape[1])),
        ):
            if mine != theirs:
                return (
                    f"{what} adds sparse tensors of different {name}, {mine} and {theirs}. Give both "
                    "branches layers that lead to the same."
                )
    return None
