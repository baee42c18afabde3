# SPDX-License-Identifier: Apache-2.0
"""Give bare features of a sparse tensor their indices."""

from __future__ import annotations

import operator

from torch import fx

from scn_fx.graph import operator_spec
from scn_fx.operators.spec import Kind
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["CompleteOutput"]


class CompleteOutput(GraphPass):
    """A model that returns `x.features` gives a graph that returns the pair (features, indices)."""

    def call(self, graph: fx.GraphModule) -> bool:
        end = graph.graph.output_node()
        before = end.args[0]
        value = before
        while isinstance(value, tuple | list) and len(value) == 1:
            value = value[0]
        if isinstance(value, fx.Node):
            found = nodes.sites(value)
            made = operator_spec(found)
            if found is not None and made is not None:
                with graph.graph.inserting_before(end):
                    item = made.gives.index(Kind.SITES)
                    indices = graph.graph.call_function(operator.getitem, (found, item))
                value = (value, indices)
            elif found is not None and found is not value and found.op == "placeholder":
                value = (value, found)
        end.args = (tuple(value) if isinstance(value, list) else value,)
        return end.args[0] is not before
