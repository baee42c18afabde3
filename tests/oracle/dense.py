# SPDX-License-Identifier: Apache-2.0
"""Dense float64 convolutions of scattered sites (torch): what the sparse oracle itself is checked against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tests.oracle.numerics import scatter_dense
from tests.oracle.strategies import Case

__all__ = ["dense_convolution", "reached_sites"]

Float64 = npt.NDArray[np.float64]


def dense_convolution(case: Case, features: Float64, weight: Float64) -> Float64:
    """Dense result [B, out, *out_shape] of a bias-free convolution; `weight` is [out, kz, ky, kx, in].

    For a submanifold convolution the grid is padded so that the output has the input's size, whatever the
    kernel's parity: `kernel // 2 * dilation` before, the rest of the reach after.
    """
    x = torch.from_numpy(scatter_dense(features, case.sites, case.batch_size, case.shape))
    w = torch.from_numpy(np.ascontiguousarray(weight.transpose(0, 4, 1, 2, 3)))
    if case.kind == "transposed":
        y = torch.nn.functional.conv_transpose3d(
            x, w.transpose(0, 1), None, case.stride, case.padding, case.output_padding, 1, case.dilation
        )  # fmt: skip
    elif case.kind == "strided":
        y = torch.nn.functional.conv3d(x, w, None, case.stride, case.padding, case.dilation)
    else:
        assert case.kind == "subm"
        ends = [
            (p, d * (k - 1) - p) for k, d, p in zip(case.kernel, case.dilation, case.padding, strict=True)
        ]
        x = torch.nn.functional.pad(x, [n for pair in reversed(ends) for n in pair])
        y = torch.nn.functional.conv3d(x, w, None, 1, 0, case.dilation)
    return y.numpy()


def reached_sites(case: Case) -> npt.NDArray[np.int32]:
    """Output sites [M, 4] in ascending order: where a dense convolution of ones with ones is not zero."""
    if case.kind == "subm":
        return case.sites[np.lexsort(case.sites.T[::-1])]
    ones = np.ones((len(case.sites), 1))
    dense = dense_convolution(case, ones, np.ones((1, *case.kernel, 1)))
    return np.stack(np.nonzero(dense[:, 0] > 0.5), axis=1).astype(np.int32)
