# SPDX-License-Identifier: Apache-2.0
"""CenterPoint, PillarNet, LargeKernel3D (det3d), and SECOND."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.models.originals.checkout import SPCONV_1, Checkout
from benchmarks.models.originals.network import Case, Network, Wrapped, pillars, voxels
from benchmarks.models.stages import DENSE

__all__ = ["NETWORKS"]

GRID = (1440, 1440, 40)
LEVELS = tuple((1, f"conv{i}") for i in (1, 2, 3, 4))


def centerpoint(checkout: Checkout) -> Case:
    """CenterPoint's encoder."""
    model = checkout.load("det3d.models.backbones.scn").SpMiddleResNetFHD(5)
    features, indices = voxels(5, GRID, checkout.voxels)
    return Case(model, (features, indices, 1, list(GRID)))


def mean_reader(checkout: Checkout) -> Case:
    """The mean of each voxel's points before the encoder."""
    reader = checkout.load("det3d.models.readers.voxel_encoder").VoxelFeatureExtractorV3(5)
    encoder = centerpoint(checkout)
    features, indices, *rest = encoder.args
    points = features[:, None].repeat(1, 10, 1)

    def forward(self: Any, points: Any, count: Any, coors: Any, batch: int, shape: Any) -> Any:
        return self.encoder(self.reader(points, count), coors, batch, shape)

    model = Wrapped(forward, reader=reader, encoder=encoder.model)
    args = points, torch.full((len(points),), 10), indices, *rest
    return Case(model, args, frame=(features, indices))


def dynamic_reader(checkout: Checkout) -> Case:
    """Voxelisation of points before the encoder."""
    made = checkout.load("det3d.models.readers.dynamic_voxel_encoder").DynamicVoxelEncoder
    reader = made([-54.0, -54.0, -5.0, 54.0, 54.0, 3.0], [0.075, 0.075, 0.2])
    encoder = centerpoint(checkout).model

    def forward(self: Any, points: Any) -> Any:
        features, coors, shape = self.reader(points)
        return self.encoder(features, coors, len(points), shape)

    return Case(Wrapped(forward, reader=reader, encoder=encoder), ([torch.randn(3000, 5)],))


def large_kernel(types: list[str]) -> Callable[[Checkout], Case]:
    """LargeKernel3D with the published kernel sizes."""

    def build(checkout: Checkout) -> Case:
        made = checkout.load("det3d.models.backbones.scn_largekernel").SpMiddleResNetFHDLargeKernel
        model = made(5, conv_types=types, kernel_sizes=[7, 5, 5, 3], kernel_sizes_downsample=[5, 5])
        features, indices = voxels(5, GRID, checkout.voxels)
        return Case(model, (features, {}, indices, 1, list(GRID)))

    return build


def second(name: str) -> Callable[[Checkout], Case]:
    """A middle extractor of SECOND."""

    def build(checkout: Checkout) -> Case:
        made = getattr(checkout.load("second.pytorch.models.middle"), name)
        depth = 80 if name in ("SpMiddleFHDHRZ", "SpMiddle2K") else 40
        features, indices = voxels(4, (512, 512, depth), checkout.voxels)
        return Case(made([1, depth, 512, 512, 16], num_input_features=4), (features, indices, 1))

    return build


def bottleneck(checkout: Checkout) -> Case:
    """SECOND's bottleneck block, whose forward adds sparse tensors by `+=`."""
    import spconv.pytorch as spconv

    made = checkout.load("second.pytorch.models.resnet").SparseBottleneck
    first = spconv.SubMConv3d(4, 64, 3, indice_key="first", bias=False)
    features, indices = voxels(4, (128, 128, 32), checkout.voxels)

    def forward(self: Any, features: torch.Tensor, indices: torch.Tensor) -> Any:
        x = spconv.SparseConvTensor(features, indices, [32, 128, 128], 1)
        return self.block(self.first(x))

    return Case(Wrapped(forward, first=first, block=made(64, 16)), (features, indices))


def pillarnet(checkout: Checkout) -> Case:
    """PillarNet's encoder on a sparse tensor of pillars."""
    import spconv.pytorch as spconv

    made = checkout.load("det3d.models.backbones.pcnres18").SpMiddlePillarEncoder18
    features, indices = pillars(32, (512, 512), checkout.voxels)
    return Case(made(), (spconv.SparseConvTensor(features, indices, [512, 512], 1),))


CENTERPOINT, LARGE = "tianweiy/CenterPoint", "dvlab-research/LargeKernel3D"
SECOND = "traveller59/second.pytorch"
MIDDLES = ("SpMiddleFHD", "SpMiddle2K", "SpMiddleFHDLite", "SpMiddleFHDHRZ", "SpMiddleFHDPeople")

NETWORKS = (
    Network("centerpoint", "CenterPoint SpMiddleResNetFHD", CENTERPOINT, centerpoint, (0, *LEVELS)),
    Network("centerpoint_mean", "CenterPoint VoxelFeatureExtractorV3, SpMiddleResNetFHD", CENTERPOINT,
            mean_reader, (0,), {"input": "reader"}),
    Network("centerpoint_dynamic", "CenterPoint DynamicVoxelEncoder, SpMiddleResNetFHD", CENTERPOINT,
            dynamic_reader, (0,), outside="voxelises points"),
    Network("largekernel_det3d", "LargeKernel3D SpMiddleResNetFHDLargeKernel", LARGE,
            large_kernel(["spatialgroupconv", "common", "common", "common"]), (0,),
            roots=("object-detection",), also=(CENTERPOINT,)),
    Network("largekernel_det3d_common", "LargeKernel3D SpMiddleResNetFHDLargeKernel, conv_types 'common'",
            LARGE, large_kernel(["common"] * 4), (0,), roots=("object-detection",), also=(CENTERPOINT,)),
    *(Network(f"second_{name}", f"SECOND {name}", SECOND, second(name), (0,), aliases=SPCONV_1)
      for name in MIDDLES),
    Network("second_bottleneck", "SECOND SparseBottleneck", SECOND, bottleneck, (0,), aliases=SPCONV_1),
    Network("pillarnet18", "PillarNet SpMiddlePillarEncoder18", "VISION-SJTU/PillarNet", pillarnet,
            ("x_conv3", "x_conv4", "x_conv5"), outside={"x_conv5": DENSE}),
)  # fmt: skip
