# SPDX-License-Identifier: Apache-2.0
"""Each operator obeys torch's contract: schema, fake kernel, autograd registration, dynamic shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import scn_fx.ops
from scn_fx.operators.activations import real_activations
from tests.ops.samples import (
    BATCH,
    GRID,
    conv_arguments,
    random_sites,
    random_tensor,
    strided_arguments,
    subm_arguments,
)

OPS = torch.ops.scn_fx


def _cases() -> dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    sites = random_sites()
    x = random_tensor(40, 6).requires_grad_()
    other = random_tensor(40, 6, seed=1).requires_grad_()
    weight = random_tensor(8, 3, 3, 3, 6, seed=2).requires_grad_()
    bias = random_tensor(8, seed=3).requires_grad_()
    kernel_map = OPS.subm_map(sites, **subm_arguments())
    _, strided = OPS.conv_map(sites, **strided_arguments())
    dense = random_tensor(2, 3, 4, 5).requires_grad_()
    int8 = {"precision": "int8", "input_dynamic_range": 2.5, "weight_dynamic_ranges": [3.0] * 8}
    inverse = conv_arguments(activation="ReLU", output_precision="fp32")
    return {
        "subm_map": (OPS.subm_map, (sites,), subm_arguments()),
        "conv_map": (OPS.conv_map, (sites,), strided_arguments()),
        "inverse_map": (OPS.inverse_map, (strided, sites), {"name": "up"}),
        "convolution": (OPS.convolution, (x, weight, bias, kernel_map), conv_arguments()),
        "convolution ReLU": (OPS.convolution, (x, weight, bias, kernel_map), inverse),
        "convolution SiLU": (
            OPS.convolution,
            (x, weight, bias, kernel_map),
            {**inverse, "activation": "SiLU"},
        ),
        "convolution without bias": (OPS.convolution, (x, weight, None, kernel_map), conv_arguments()),
        "convolution int8": (
            OPS.convolution,
            (x.detach(), weight.detach(), bias.detach(), kernel_map),
            conv_arguments(**int8, output_precision="fp16"),
        ),
        "add": (OPS.add, (x, other), {"name": "add"}),
        "add ReLU": (OPS.add, (x, other), {"name": "add", "activation": "ReLU"}),
        "add LeakyReLU": (
            OPS.add,
            (x, other),
            {"name": "add", "activation": "LeakyReLU", "activation_parameter": -0.3},
        ),
        "affine": (OPS.affine, (x,), {"name": "bn", "scale": [1.5] * 6, "shift": [-0.5] * 6}),
        "concat": (OPS.concat, ([x, other, x],), {"name": "join"}),
        "multiply": (OPS.multiply, (x, other), {"name": "gate"}),
        "multiply int8": (
            OPS.multiply,
            (x.detach(), other.detach()),
            {"name": "gate", "precision": "int8", "output_precision": "fp16"}
            | {"input0_dynamic_range": 2.0, "input1_dynamic_range": 3.0},
        ),
        **{
            f"pool {kind}": (OPS.pool, (x, kernel_map), {"name": "pool", "kind": kind})
            for kind in ("max", "mean", "sum")
        },
        "union_map": (
            OPS.union_map,
            ([sites, random_sites(20, seed=1)],),
            {"name": "u", "batch_size": BATCH, "spatial_shape": list(GRID)},
        ),
        "union": (OPS.union, ([x, other], kernel_map[:, :2].contiguous()), {"name": "u"}),
        **{
            f"global_pool {kind}": (
                OPS.global_pool,
                (x, sites),
                {"name": "global", "kind": kind, "batch_size": BATCH},
            )
            for kind in ("max", "mean", "sum")
        },
        "group_norm": (
            OPS.group_norm,
            (x,),
            {"name": "n", "groups": 2, "epsilon": 1e-3, "scale": [1.5] * 6, "shift": [-0.5] * 6},
        ),
        "product": (OPS.product, (x, weight.detach().reshape(8, 27, 6), kernel_map), {"name": "p"}),
        "weight_gradient": (OPS.weight_gradient, (other, x, kernel_map), {"name": "w"}),
        "leaky_relu": (OPS.leaky_relu, (x,), {"name": "leaky", "activation_parameter": -0.3}),
        **{
            each.operator: (getattr(OPS, each.operator), (x,), {"name": each.operator})
            for each in real_activations()
            if each.parameter is None
        },
        "scatter_dense": (
            OPS.scatter_dense,
            (x, sites),
            {"name": "dense", "format": "zyx", "batch_size": BATCH, "spatial_shape": list(GRID)},
        ),
        "reshape": (OPS.reshape, (dense,), {"name": "flat", "dims": [2, -1, 5]}),
        "transpose": (OPS.transpose, (dense,), {"name": "turn", "dims": [0, 2, 1, 3]}),
        "transpose to itself": (OPS.transpose, (dense,), {"name": "turn", "dims": [0, 1, 2, 3]}),
        "input_sites": (OPS.input_sites, (x.detach(),), {"spatial_shape": list(GRID)}),
    }


@pytest.mark.parametrize("case", list(_cases()))
def test_opcheck(case: str) -> None:
    operator, args, kwargs = _cases()[case]
    torch.library.opcheck(operator.default, args, kwargs)


@pytest.mark.parametrize("name", [*scn_fx.ops.__all__, "product", "weight_gradient"])
def test_every_operator_has_cases_and_kernels_for_both_devices(name: str) -> None:
    assert any(case.split()[0] == name for case in _cases())
    for key in ("CPU", "CUDA"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"scn_fx::{name}", key)


def test_a_strided_map_has_a_count_that_depends_on_data() -> None:
    class Strided(torch.nn.Module):
        def forward(self, indices: torch.Tensor) -> torch.Tensor:
            return OPS.conv_map(indices, **strided_arguments())[1]

    program = torch.export.export(Strided(), (random_sites(),), strict=False)
    (kernel_map,) = (n.meta["val"] for n in program.graph.nodes if n.name == "getitem_1")
    assert not isinstance(kernel_map.shape[0], int)
    assert kernel_map.shape[1] == 27
