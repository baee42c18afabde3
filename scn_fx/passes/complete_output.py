# SPDX-License-Identifier: Apache-2.0
"""Give bare features of a sparse tensor their indices."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from scn_fx.graph import operator_spec
from scn_fx.graph_outputs import output_entries, paired, returned
from scn_fx.operators.spec import Kind
from scn_fx.passes.base import GraphPass
from scn_fx.passes.outputs import value_sites

__all__ = ["CompleteOutput"]


class CompleteOutput(GraphPass):
    """A model that returns `x.features` gives a graph that returns the pair (features, indices).

    Several outputs are completed one by one; the graph then returns a tuple of maps and pairs.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        end = graph.graph.output_node()
        before = end.args[0]
        end.args = (returned([_completed(graph, end, each) for each in output_entries(before)]),)
        return bool(end.args[0] != before)


def _completed(graph: fx.GraphModule, end: fx.Node, entry: tuple[Any, ...]) -> tuple[Any, ...]:
    value = entry[0]
    if len(entry) > 1 or not isinstance(value, fx.Node) or value.op == "placeholder":
        return entry
    found = value_sites(graph, value)
    if found is None:
        return entry
    made = operator_spec(found)
    if made is None:
        return paired(value, found) if found.op == "placeholder" else entry
    with graph.graph.inserting_before(end):
        indices = graph.graph.call_function(operator.getitem, (found, made.gives.index(Kind.SITES)))
    return paired(value, indices)
