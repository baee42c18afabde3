# SPDX-License-Identifier: Apache-2.0
"""An entry in the table of activations is all that capture, passes, graph and export need of a new one."""

from __future__ import annotations

import subprocess
import sys

ENTRY = """
    Activation(
        name="ELU",
        operator="elu",
        onnx_type="Elu",
        doc="x, or alpha (exp(x) - 1) where x is negative.",
        compute=lambda x, alpha: x.where(x > 0, alpha * x.expm1()),
        gradient=lambda grad, output, before, alpha: grad.where(output > 0, grad * alpha * before().exp()),
        parameter=Parameter("alpha", 1.0, "alpha"),
        aten={"elu": lambda given: float(given("alpha"))},
        modules=("ELU",),
        attribute_in=frozenset({"scn_fx"}),
        node_in=frozenset({"scn_fx"}),
    ),
)

ACTIVATIONS: """

PROGRAM = """
import sys, types, pathlib
import scn_fx
folder = pathlib.Path(scn_fx.__file__).parent / "operators"
stub = sys.modules["scn_fx.operators"] = types.ModuleType("scn_fx.operators")
stub.__path__ = [str(folder)]
made = sys.modules["scn_fx.operators.activations"] = types.ModuleType("scn_fx.operators.activations")
source = (folder / "activations.py").read_text()
assert source.count(")\\n\\nACTIVATIONS: ") == 1
exec(source.replace(")\\n\\nACTIVATIONS: ", ENTRY), made.__dict__)
del sys.modules["scn_fx.operators"]

import spconv.pytorch as spconv
import torch
from spconv.core import ConvAlgo
from torch import nn
from scn_fx.capture import capture
from scn_fx.errors import ExportError, ScnError
from scn_fx.graph import layers
from scn_fx.onnx.schemas import register_schemas
from scn_fx.onnx.view import Builder, check_exportable, onnx_view
from scn_fx.names import activation_nodes
from scn_fx.quant.scale_groups import scale_groups
from tests.capture.frames import frame, sparse

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = spconv.SubMConv3d(4, 4, 3)
        self.elu = nn.ELU(0.25)
        self.second = spconv.SubMConv3d(4, 4, 3)
        self.zero = nn.LeakyReLU(0.0, inplace=True)
        self.alone = nn.ELU()
        self.last = spconv.SubMConv3d(4, 4, 3)

    def forward(self, x):
        a = self.first(x)
        a = a.replace_feature(self.elu(a.features))
        b = self.second(a)
        b = b.replace_feature(torch.nn.functional.elu_(b.features + a.features, 0.5))
        c = self.last(b)
        c = c.replace_feature(self.zero(c.features))
        return c.replace_feature(self.alone(c.features) + c.features)

graph = capture(Model().eval(), (sparse(*frame()),))
assert not any("not supported" in note for note in graph.meta["scn_fx"]["notes"])
found = layers(graph)
print([(l.name, l.kind, l.fused.name) for l in found])
first, second, add, last, alone, total = found
assert (first.activation, first.activation_parameter) == ("ELU", 0.25)
assert (add.activation, add.activation_parameter, add.activation_name) == ("ELU", 0.5, "elu")
assert last.activation == "ReLU" and "activation_parameter" not in last.node.kwargs
assert (alone.kind, alone.activation_parameter, alone.name) == ("elu", 1.0, "alone")
x = torch.randn(6, 4, requires_grad=True)
y = torch.ops.scn_fx.elu(x, name="a", activation_parameter=0.5)
assert torch.equal(y, x.where(x > 0, 0.5 * x.expm1()))
y.sum().backward()
assert torch.allclose(x.grad, (0.5 * x.exp()).where(x < 0, torch.ones(())))
try:
    graph(*frame())
except ScnError as error:
    assert "first: activation must be" in str(error)
else:
    print("the kernels fuse it")

register_schemas()
try:
    onnx_view(graph)
except ExportError as error:
    assert "dialect libspconv has no form of elu" in str(error)
else:
    raise AssertionError("libspconv has no ELU")
assert list(activation_nodes(found, "scn_fx").values()) == ["elu"]
built = Builder(graph, check_exportable(graph), "scn_fx").build()
calls = {n.kwargs["name"]: n for n in built.graph.nodes if str(n.target).startswith("scn_fx_onnx")}
assert list(calls) == ["first", "second", "add", "elu", "last", "alone", "add_1"]
assert (calls["first"].kwargs["activation"], calls["first"].kwargs["alpha"]) == ("ELU", 0.25)
assert calls["elu"].kwargs["alpha"] == 0.5 and calls["alone"].kwargs["alpha"] == 1.0
assert "alpha" not in calls["last"].kwargs
assert scale_groups(graph) is not None
print("done")
"""


def test_a_new_activation_is_one_entry() -> None:
    code = f"ENTRY = {ENTRY!r}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
