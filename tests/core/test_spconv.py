# SPDX-License-Identifier: Apache-2.0
"""Compiled layers against the real spconv: bias-free, fp32, its CPU build."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import spconv.pytorch as spconv
import torch
from hypothesis import assume, example, given
from spconv.core import ConvAlgo

from scn_fx import _core
from tests.core.activations import NONE
from tests.core.test_kernel_maps import compiled_maps
from tests.oracle.compare import assert_within
from tests.oracle.frames import random_sites
from tests.oracle.geometry import align
from tests.oracle.strategies import Case, cases

MODULES = {
    "subm": spconv.SubMConv3d,
    "strided": spconv.SparseConv3d,
    "transposed": spconv.SparseConvTranspose3d,
}


def _is_supported(case: Case) -> bool:
    """What spconv's CPU build can run, and computes as it says."""
    if case.kind == "subm":
        return all(k % 2 == 1 for k in case.kernel)  # its CPU build refuses even submanifold kernels
    if case.volume == 1 and case.kind != "subm":
        return case.kind == "strided" and (max(case.stride) > 1 or not any(case.padding))
    # its transposed modules take no output padding, and leave dilation out of the output's shape
    return case.kind != "transposed" or (max(case.dilation) == 1 and not any(case.output_padding))


def _effective(weight: npt.NDArray[np.float32], case: Case) -> npt.NDArray[np.float32]:
    """With a 1x1x1 kernel spconv multiplies by the weight's memory, [out, 1, 1, 1, in], read as [in, out]."""
    if case.volume > 1 or max(case.stride) > 1:
        return weight
    out, channels = weight.shape[0], weight.shape[-1]
    return np.ascontiguousarray(weight.reshape(channels, out).T).reshape(weight.shape)


def _pointwise(kind: str) -> Case:
    sites = random_sites(np.random.default_rng(5), 60, (4, 6, 6), 2)
    ones, zeros, grid = (1, 1, 1), (0, 0, 0), (4, 6, 6)
    return Case(kind, sites, 2, grid, grid, ones, ones, zeros, ones, zeros, (3, 5), 5)


@given(cases(max_channels=16))
@example(_pointwise("subm"))
@example(_pointwise("strided"))
def test_layers_equal_spconvs(case: Case) -> None:
    assume(len(case.sites) > 0 and _is_supported(case))
    channels, out = case.channels
    rng = np.random.default_rng(case.seed)
    features = rng.normal(size=(len(case.sites), channels)).astype(np.float32)
    options = {"bias": False, "algo": ConvAlgo.Native, "indice_key": "key"}
    geometry = case.kernel, case.stride, case.padding, case.dilation
    x = spconv.SparseConvTensor(
        torch.from_numpy(features), torch.from_numpy(case.sites), case.shape, case.batch_size
    )  # fmt: skip
    with torch.no_grad():
        kind = "strided" if case.kind == "inverse" else case.kind
        module = MODULES[kind](channels, out, *geometry, **options)
        y = module(x)
        if case.kind == "inverse":
            module = spconv.SparseInverseConv3d(
                out, channels, case.kernel, indice_key="key", bias=False, algo=ConvAlgo.Native
            )
            x, y = y, module(y)
            features = x.features.numpy()[align(case.oracle_maps()[0], x.indices.numpy())]
    weight = module.weight.detach().numpy()
    sites, kernel_map = compiled_maps(case)
    got = _core.convolution(
        np.ascontiguousarray(features),
        _effective(weight, case),
        None,
        kernel_map,
        "fp32",
        "fp32",
        NONE,
        0.0,
        None,
    )
    assert tuple(y.spatial_shape) == (case.shape if case.kind == "inverse" else case.out_shape)
    expected = y.features.numpy()[align(sites, y.indices.numpy())]
    assert_within(got, expected, 1e-5 * np.abs(expected).max(initial=1e-30))
