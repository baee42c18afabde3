# SPDX-License-Identifier: Apache-2.0
"""OpenPCDet, and repositories that grew from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.models.originals.checkout import SPCONV_1, Checkout
from benchmarks.models.originals.network import Case, Config, Network, Wrapped, pillars, voxels
from benchmarks.models.stages import BY_VALUES, DENSE

__all__ = ["NETWORKS"]

GRID = (1440, 1440, 40)
BACKBONES = "pcdet.models.backbones_3d"
LEVELS = tuple(("multi_scale_3d_features", f"x_conv{i}") for i in (1, 2, 3, 4))
ENCODED = "encoded_spconv_tensor"


def batch(checkout: Checkout, channels: int, frames: int = 1) -> dict[str, Any]:
    """The batch dictionary of a 3D backbone."""
    features, indices = voxels(channels, GRID, checkout.voxels, frames)
    return {"voxel_features": features, "voxel_coords": indices, "batch_size": frames}


def backbone(
    module: str, name: str, channels: int = 5, config: dict[str, Any] | None = None, **options: Any
) -> Callable[[Checkout], Case]:
    """A 3D backbone on its batch dictionary."""

    def build(checkout: Checkout) -> Case:
        made = getattr(checkout.load(f"{BACKBONES}.{module}"), name)
        model = made(Config(config or {}), input_channels=channels, grid_size=np.array(GRID), **options)
        return Case(model, (batch(checkout, channels),))

    return build


def pillar_backbone(module: str, name: str) -> Callable[[Checkout], Case]:
    """A 2D backbone on pillars."""

    def build(checkout: Checkout) -> Case:
        made = getattr(checkout.load(f"{BACKBONES}.{module}"), name)
        model = made(Config(), input_channels=32, grid_size=np.array((512, 512, 1)))
        features, indices = pillars(32, (512, 512), checkout.voxels)
        return Case(model, ({"pillar_features": features, "pillar_coords": indices, "batch_size": 1},))

    return build


def bev(frames: int) -> Callable[[Checkout], Case]:
    """The backbone of SECOND and the module that makes its bird's-eye view."""

    def build(checkout: Checkout) -> Case:
        encoder = checkout.load(f"{BACKBONES}.spconv_backbone").VoxelBackBone8x(Config(), 4, np.array(GRID))
        height = checkout.load("pcdet.models.backbones_2d.map_to_bev.height_compression").HeightCompression
        model = nn.Sequential(encoder, height(Config(NUM_BEV_FEATURES=256)))
        return Case(model, (batch(checkout, 4, frames),))

    return build


def mean_reader(checkout: Checkout) -> Case:
    """The mean of each voxel's points before SECOND's backbone."""
    made = checkout.load(f"{BACKBONES}.vfe.mean_vfe").MeanVFE
    model = nn.Sequential(made(Config(), 4), bev(1)(checkout).model)
    given = batch(checkout, 4)
    features = given.pop("voxel_features")
    points = features[:, None].repeat(1, 5, 1)
    given.update(voxels=points, voxel_num_points=torch.full((len(points),), 5))
    return Case(model, (given,), frame=(features, given["voxel_coords"]))


def dynamic_reader(checkout: Checkout) -> Case:
    """Voxelisation of points before the residual backbone."""
    made = checkout.load(f"{BACKBONES}.vfe.dynamic_mean_vfe").DynamicMeanVFE
    limits = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
    reader = made(Config(), 5, [0.075, 0.075, 0.2], list(GRID), limits)
    encoder = checkout.load(f"{BACKBONES}.spconv_backbone").VoxelResBackBone8x(Config(), 4, np.array(GRID))
    points = torch.cat([torch.zeros(3000, 1), torch.randn(3000, 3), torch.rand(3000, 1)], 1)
    return Case(nn.Sequential(reader, encoder), ({"points": points, "batch_size": 1},))


def unet(checkout: Checkout) -> Case:
    """Part-A2's U-Net."""
    made = checkout.load(f"{BACKBONES}.spconv_unet").UNetV2
    limits = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
    return Case(made(Config(), 4, np.array(GRID), [0.075, 0.075, 0.2], limits), (batch(checkout, 4),))


SED = {
    "SED_FEATURE_DIM": 128, "SED_NUM_LAYERS": 1, "SED_NUM_SBB": [2, 1, 1], "SED_DOWN_KERNEL_SIZE": [3, 3, 3],
    "SED_DOWN_STRIDE": [1, 2, 2],
}  # fmt: skip
DED = {"DED_FEATURE_DIM": 256, "DED_NUM_LAYERS": 1, "DED_NUM_SBB": [2, 1, 1], "DED_DOWN_STRIDE": [1, 2, 2]}
AFD = {
    "AFD_FEATURE_DIM": 128, "AFD_NUM_LAYERS": 1, "AFD_NUM_SBB": [2, 1, 1], "AFD_DOWN_KERNEL_SIZE": [3, 3, 3],
    "AFD_DOWN_STRIDE": [1, 2, 2], "AFD": True, "FG_THRESHOLD": 0.3, "FEATMAP_STRIDE": 8,
    "GREOUP_POOLING_KERNEL_SIZE": [7, 3], "DETACH_FEATURE": False, "GROUP_CLASS_NAMES": [["Car"]],
}  # fmt: skip
HED = {
    "FEATURE_DIM": 128, "NUM_LAYERS": 2, "NUM_SBB": [2, 1, 1], "DOWN_KERNEL_SIZE": [3, 3, 3],
    "DOWN_STRIDE": [1, 2, 2],
}  # fmt: skip
SAFD = {"class_names": ["Car"], "voxel_size": [0.1, 0.1, 0.2], "point_cloud_range": [0.0] * 6}
VIR = {
    "RETURN_NUM_FEATURES_AS_DICT": True, "OUT_FEATURES": 64, "LAYER_DISCARD_RATE": 0.1,
    "NUM_FILTERS": [16, 32, 64, 64],
}  # fmt: skip
FLAT = tuple(("multi_scale_2d_features", f"x_conv{i}") for i in (3, 4, 5))


def merging(checkout: Checkout) -> Case:
    """LION's only convolution, and the merging of sites behind it."""
    import spconv.pytorch as spconv

    made = checkout.load(f"{BACKBONES}.lion_backbone_one_stride").PatchMerging3D(16)
    features, indices = voxels(16, (128, 128, 32), checkout.voxels)

    def forward(self: Any, features: torch.Tensor, indices: torch.Tensor) -> Any:
        return self.merge(spconv.SparseConvTensor(features, indices, [32, 128, 128], 1))

    return Case(Wrapped(forward, merge=made), (features, indices))


PCDET, LION = "open-mmlab/OpenPCDet", "happinesslz/LION"
MERGED = "merges sites"
NECK = {FLAT[2]: DENSE}

NETWORKS = (
    Network("pcdet_voxel8x", "OpenPCDet VoxelBackBone8x", PCDET,
            backbone("spconv_backbone", "VoxelBackBone8x", 4), (ENCODED, *LEVELS)),
    Network("pcdet_voxel8x_bev", "OpenPCDet VoxelBackBone8x, HeightCompression", PCDET, bev(1),
            ("spatial_features",)),
    Network("pcdet_voxel8x_b2", "OpenPCDet VoxelBackBone8x, HeightCompression, batch of 2", PCDET, bev(2),
            ("spatial_features",)),
    Network("pcdet_res8x", "OpenPCDet VoxelResBackBone8x", PCDET,
            backbone("spconv_backbone", "VoxelResBackBone8x"), (ENCODED, *LEVELS)),
    Network("voxelrcnn", "Voxel R-CNN VoxelBackBone8x", "djiajunustc/Voxel-R-CNN",
            backbone("spconv_backbone", "VoxelBackBone8x", 4), (ENCODED, *LEVELS), aliases=SPCONV_1),
    Network("pcdet_mean_voxel8x", "OpenPCDet MeanVFE, VoxelBackBone8x", PCDET, mean_reader,
            ("spatial_features",), {"input": "0"}),
    Network("pcdet_dynmean", "OpenPCDet DynamicMeanVFE, VoxelResBackBone8x", PCDET, dynamic_reader,
            (ENCODED,), outside="voxelises points"),
    Network("pcdet_unetv2", "OpenPCDet UNetV2 (Part-A2)", PCDET, unet, (ENCODED, "point_features")),
    Network("pcdet_pillar8x", "OpenPCDet PillarBackBone8x", PCDET,
            pillar_backbone("spconv_backbone_2d", "PillarBackBone8x"), FLAT, outside=NECK),
    Network("pcdet_pillarres18", "OpenPCDet PillarRes18BackBone8x", PCDET,
            pillar_backbone("spconv_backbone_2d", "PillarRes18BackBone8x"), FLAT, outside=NECK),
    Network("pcdet_voxelnext", "OpenPCDet VoxelResBackBone8xVoxelNeXt", PCDET,
            backbone("spconv_backbone_voxelnext", "VoxelResBackBone8xVoxelNeXt"),
            (ENCODED, LEVELS[2], LEVELS[3]), outside={LEVELS[3]: MERGED}),
    Network("voxelnext_orig", "VoxelNeXt VoxelResBackBone8xVoxelNeXt", "dvlab-research/VoxelNeXt",
            backbone("spconv_backbone_voxelnext", "VoxelResBackBone8xVoxelNeXt"), (ENCODED, LEVELS[2])),
    Network("voxelnext_sps", "VoxelNeXt with spatial pruning", "dvlab-research/VoxelNeXt",
            backbone("spconv_backbone_voxelnext_sps", "VoxelResBackBone8xVoxelNeXtSPS"), (ENCODED,),
            outside=BY_VALUES),
    Network("pcdet_voxelnext2d", "OpenPCDet VoxelResBackBone8xVoxelNeXt2D", PCDET,
            pillar_backbone("spconv_backbone_voxelnext2d", "VoxelResBackBone8xVoxelNeXt2D"),
            (ENCODED, FLAT[0])),
    Network("pcdet_focal", "OpenPCDet VoxelBackBone8xFocal", PCDET,
            backbone("spconv_backbone_focal", "VoxelBackBone8xFocal", 4, {"VOXEL_SIZE": [0.1] * 3},
                     voxel_size=np.array([0.05, 0.05, 0.1]), point_cloud_range=np.array([0.0] * 6)),
            (ENCODED, LEVELS[0]), outside=BY_VALUES),
    Network("largekernel_pcdet", "LargeKernel3D VoxelResBackBone8xLargeKernel3D",
            "dvlab-research/LargeKernel3D",
            backbone("spconv_backbone_largekernel", "VoxelResBackBone8xLargeKernel3D"), (ENCODED,),
            roots=("object-detection",), also=(PCDET,)),
    Network("hednet", "HEDNet, single stage", LION, backbone("spconv_backbone_sed", "HEDNet", 5, HED),
            (ENCODED,)),
    Network("hednet_dense", "HEDNet with dense layers", LION, backbone("hednet", "HEDNet", 5, {**SED, **DED}),
            ("spatial_features_2d",), outside=DENSE),
    Network("safdnet", "SAFDNet SparseHEDNet", LION, backbone("hednet", "SparseHEDNet", 5, {**SED, **AFD},
            **SAFD), ("spatial_features_2d",), outside=BY_VALUES),
    Network("lion_pillar18", "LION PillarRes18BackBone8x", LION,
            pillar_backbone("spconv2d_backbone_pillar", "PillarRes18BackBone8x"), FLAT, outside=NECK),
    Network("lion_merging", "LION PatchMerging3D", LION, merging, (0,)),
    Network("virconv_lidar", "VirConv VirConv8x, LiDAR branch", "hailanyi/VirConv",
            backbone("spconv_backbone", "VirConv8x", 4, VIR), (ENCODED, LEVELS[3]),
            {"batch_size": 1, "spatial_shape": (41, 1440, 4 * 1440)}, outside=BY_VALUES),
)  # fmt: skip
