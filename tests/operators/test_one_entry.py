# SPDX-License-Identifier: Apache-2.0
"""An entry in the table of activations is all that capture, passes, graph and export need of a new one."""

from __future__ import annotations

import subprocess
import sys

ENTRY = """
    Activation(
        name="LeakyReLU",
        operator="leaky_relu",
        onnx_type="LeakyRelu",
        doc="x, or alpha x where x is negative.",
        compute=lambda x, slope: x.where(x > 0, slope * x),
        gradient=lambda grad, output, slope: grad.where(output > 0, slope * grad),
        parameter=Parameter("negative_slope", 0.01, "alpha"),
        aten={"leaky_relu": lambda given: float(given("negative_slope"))},
        modules=("LeakyReLU",),
        homogeneous=True,
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
from quant.scale_groups import scale_groups
from tests.capture.frames import frame, sparse

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = spconv.SubMConv3d(4, 4, 3)
        self.leaky = nn.LeakyReLU(0.25)
        self.second = spconv.SubMConv3d(4, 4, 3)
        self.zero = nn.LeakyReLU(0.0, inplace=True)
        self.alone = nn.LeakyReLU()
        self.last = spconv.SubMConv3d(4, 4, 3)

    def forward(self, x):
        a = self.first(x)
        a = a.replace_feature(self.leaky(a.features))
        b = self.second(a)
        b = b.replace_feature(torch.nn.functional.leaky_relu_(b.features + a.features, 0.5))
        c = self.last(b)
        c = c.replace_feature(self.zero(c.features))
        return c.replace_feature(self.alone(c.features) + c.features)

graph = capture(Model().eval(), (sparse(*frame()),))
assert not any("not supported" in note for note in graph.meta["scn_fx"]["notes"])
found = layers(graph)
print([(l.name, l.kind, l.fused.name) for l in found])
first, second, add, last, alone, total = found
assert (first.activation, first.activation_parameter) == ("LeakyReLU", 0.25)
assert (add.activation, add.activation_parameter, add.activation_name) == ("LeakyReLU", 0.5, "leaky_relu")
assert last.activation == "ReLU" and "activation_parameter" not in last.node.kwargs
assert (alone.kind, alone.activation_parameter, alone.name) == ("leaky_relu", 0.01, "alone")
x = torch.randn(6, 4, requires_grad=True)
y = torch.ops.scn_fx.leaky_relu(x, name="a", activation_parameter=0.5)
assert torch.equal(y, nn.functional.leaky_relu(x, 0.5))
y.sum().backward()
assert torch.equal(x.grad, torch.where(x > 0, 1.0, 0.5))
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
    assert "dialect libspconv has no form of leaky_relu" in str(error)
else:
    raise AssertionError("libspconv has no LeakyReLU")
assert list(activation_nodes(found, "scn_fx").values()) == ["leaky_relu"]
built = Builder(graph, check_exportable(graph), "scn_fx").build()
calls = {n.kwargs["name"]: n for n in built.graph.nodes if str(n.target).startswith("scn_fx_onnx")}
assert list(calls) == ["first", "second", "add", "leaky_relu", "last", "alone", "add_1"]
assert (calls["first"].kwargs["activation"], calls["first"].kwargs["alpha"]) == ("LeakyReLU", 0.25)
assert calls["leaky_relu"].kwargs["alpha"] == 0.5 and calls["alone"].kwargs["alpha"] == 0.01
assert "alpha" not in calls["last"].kwargs
assert scale_groups(graph) is not None
print("done")
"""


def test_a_new_activation_is_one_entry() -> None:
    code = f"ENTRY = {ENTRY!r}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
