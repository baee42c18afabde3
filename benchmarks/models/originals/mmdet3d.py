# SPDX-License-Identifier: Apache-2.0
"""mmdetection3d, and repositories that grew from it: BEVFusion, TransFusion, UVTR, SST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.models.originals.checkout import Checkout
from benchmarks.models.originals.network import Case, Network, Wrapped, voxels

__all__ = ["NETWORKS"]

GRID = (1440, 1440, 40)
SHAPE = [41, 1440, 1440]
CENTERPOINT: dict[str, Any] = {
    "encoder_channels": ((16, 16, 32), (32, 32, 64), (64, 64, 128), (128, 128)),
    "encoder_paddings": ((0, 0, 1), (0, 0, 1), (0, 0, [0, 1, 1]), (0, 0)),
    "block_type": "basicblock",
}
XYZ: dict[str, Any] = {**CENTERPOINT, "encoder_paddings": ((0, 0, 1), (0, 0, 1), (0, 0, (1, 1, 0)), (0, 0))}
MIDDLE = "mmdet3d.models.middle_encoders"


def encoder(
    module: str,
    name: str,
    channels: int = 5,
    args: tuple[Any, ...] = (1,),
    xyz: bool = False,
    layers: str = "",
    **options: Any,
) -> Callable[[Checkout], Case]:
    """An encoder of voxel features, indices and the batch size; `layers` is a module that registers some."""

    def build(checkout: Checkout) -> Case:
        if layers:
            checkout.load(layers)
        made = getattr(checkout.load(module), name)
        features, indices = voxels(channels, GRID, checkout.voxels)
        shape = SHAPE
        if xyz:
            indices, shape = indices[:, [0, 3, 2, 1]].contiguous(), SHAPE[::-1]
        return Case(made(channels, shape, **options), (features, indices, *args))

    return build


def minkunet(checkout: Checkout) -> Case:
    """MinkUNet as published: grid and batch size come from the frame."""
    made = checkout.load("mmdet3d.models.backbones.minkunet_backbone").MinkUNetBackbone
    features, indices = voxels(4, (128, 128, 64), checkout.voxels)
    model = made(
        sparseconv_backend="spconv",
        encoder_channels=[32, 64, 128, 256],
        decoder_channels=[256, 128, 96, 96],
    )
    return Case(model, (features, indices))


def minkunet_body(checkout: Checkout) -> Case:
    """MinkUNet from conv_input on, with the grid and the batch size given."""
    import spconv.pytorch as spconv

    model, (features, indices) = minkunet(checkout).model, minkunet(checkout).args

    def forward(self: Any, features: torch.Tensor, indices: torch.Tensor) -> Any:
        net = self.net
        x = net.conv_input(spconv.SparseConvTensor(features, indices, [64, 128, 128], 1))
        laterals = [x]
        for layer in net.encoder:
            x = layer(x)
            laterals.append(x)
        deepest = x
        for layer, lateral in zip(net.decoder, laterals[-2::-1], strict=True):
            x = layer[0](x)
            x = layer[1](x.replace_feature(torch.cat((x.features, lateral.features), dim=1)))
        return x.features, deepest

    return Case(Wrapped(forward, net=model), (features, indices))


def simple_unet(checkout: Checkout) -> Case:
    """FSD's U-Net; the batch size comes from the frame."""
    made = checkout.load(f"{MIDDLE}.sparse_unet").SimpleSparseUNet
    features, indices = voxels(64, (640, 640, 32), checkout.voxels)
    return Case(made(64, [32, 640, 640], **FSD), ({"voxel_feats": features, "voxel_coors": indices},))


def mixer(checkout: Checkout) -> Case:
    """FSDv2's mixer of virtual voxels."""
    made = checkout.load(f"{MIDDLE}.sparse_unet").VirtualVoxelMixer
    features, indices = voxels(64, (640, 640, 32), checkout.voxels)
    return Case(made(64, [32, 640, 640], **FSD), (features, indices, 1))


FSD: dict[str, Any] = {
    "order": ("conv", "norm", "act"),
    "norm_cfg": {"type": "BN1d", "eps": 1e-3, "momentum": 0.01},
    "base_channels": 64,
    "output_channels": 128,
    "encoder_channels": ((64,), (64, 64, 64), (64, 64, 64), (128, 128, 128), (256, 256, 256)),
    "encoder_paddings": ((1,), (1, 1, 1), (1, 1, 1), ((0, 1, 1), 1, 1), (1, 1, 1)),
    "decoder_channels": ((256, 256, 128), (128, 128, 64), (64, 64, 64), (64, 64, 64), (64, 64, 64)),
    "decoder_paddings": ((1, 1), (1, 0), (1, 0), (0, 0), (0, 1)),
}


def pooling(checkout: Checkout) -> Case:
    """The pooling of Part-A2's RoI head between two convolutions."""
    import spconv.pytorch as spconv

    block = checkout.load("mmdet3d.models.layers.sparse_block").make_sparse_convmodule
    norm = {"type": "BN1d", "eps": 1e-3, "momentum": 0.01}
    down = spconv.SparseSequential(
        block(4, 64, 3, padding=1, norm_cfg=norm, indice_key="rcnn_down0"),
        spconv.SparseMaxPool3d(kernel_size=2, stride=2),
        block(64, 128, 3, padding=1, norm_cfg=norm, indice_key="rcnn_down1"),
    )
    features, indices = voxels(4, (14, 14, 14), checkout.voxels)

    def forward(self: Any, features: torch.Tensor, indices: torch.Tensor) -> Any:
        return self.conv_down(spconv.SparseConvTensor(features, indices, [15, 14, 14], 1))

    return Case(Wrapped(forward, conv_down=down), (features, indices))


MMDET3D, MIT = "open-mmlab/mmdetection3d", "mit-han-lab/bevfusion"
TRANSFUSION = "XuyangBai/TransFusion"
OLD = {"mmdet3d.ops.spconv": "spconv.pytorch"}
ENCODER = f"{MIDDLE}.sparse_encoder"
MIT_ENCODER = "mmdet3d.models.backbones.sparse_encoder"
MIDDLES = tuple((1, i) for i in range(4))
PARTA2 = {"order": ("conv", "norm", "act")}
HD = "projects.mmdet3d_plugin.models.pts_encoder.sparse_encoder_hd"
HD_SIZES: dict[str, Any] = {
    **CENTERPOINT,
    "encoder_strides": (2, 2, 2, 1),
    "output_channels": 256,
    "encoder_paddings": ((0, 0, 1), (0, 0, 1), (0, 0, [0, 1, 1]), (0, 0)),
}
FUSION = "projects.BEVFusion.bevfusion.sparse_encoder"

NETWORKS = (
    Network("mmdet3d_second", "mmdetection3d SparseEncoder, SECOND", MMDET3D,
            encoder(ENCODER, "SparseEncoder", 4, return_middle_feats=True), (0, *MIDDLES)),
    Network("mmdet3d_centerpoint", "mmdetection3d SparseEncoder, CenterPoint", MMDET3D,
            encoder(ENCODER, "SparseEncoder", return_middle_feats=True, **CENTERPOINT), (0, MIDDLES[3])),
    Network("mmdet3d_preact", "mmdetection3d SparseEncoder, activation first", MMDET3D,
            encoder(ENCODER, "SparseEncoder", 4, order=("act", "conv", "norm")), (0,)),
    Network("mmdet3d_sassd", "mmdetection3d SparseEncoderSASSD", MMDET3D,
            encoder(ENCODER, "SparseEncoderSASSD", 4, (1, True)), (0,)),
    Network("mmdet3d_sassd_aux", "mmdetection3d SparseEncoderSASSD, training branch", MMDET3D,
            encoder(ENCODER, "SparseEncoderSASSD", 4, (1, False)), (0,), outside="compiled code of mmcv"),
    Network("mmdet3d_unet", "mmdetection3d SparseUNet (Part-A2)", MMDET3D,
            encoder(f"{MIDDLE}.sparse_unet", "SparseUNet", 4), ("spatial_features", "seg_features")),
    Network("mmdet3d_minkunet", "mmdetection3d MinkUNetBackbone", MMDET3D, minkunet, (0,),
            options={"batch_size": 1, "spatial_shape": (64, 128, 128)}),
    Network("mmdet3d_minkunet_body", "mmdetection3d MinkUNetBackbone from conv_input on", MMDET3D,
            minkunet_body, (0, 1)),
    Network("parta2_pool", "mmdetection3d, pooling of Part-A2's RoI head", MMDET3D, pooling, (0,),
            outside="pooling"),
    Network("bevfusion_mmdet3d", "mmdetection3d BEVFusionSparseEncoder", MMDET3D,
            encoder(FUSION, "BEVFusionSparseEncoder", xyz=True, return_middle_feats=True, **XYZ),
            (0, MIDDLES[3]), {"axes": "xyz"}),
    Network("bevfusion_mit", "BEVFusion SparseEncoder on spconv 2.x", MIT,
            encoder(MIT_ENCODER, "SparseEncoder", xyz=True, **XYZ), (0,), {"axes": "xyz"}, aliases=OLD),
    Network("bevfusion_mit_zyx", "BEVFusion SparseEncoder on spconv 2.x, axes not given", MIT,
            encoder(MIT_ENCODER, "SparseEncoder", xyz=True, **XYZ), (0,), aliases=OLD),
    Network("bevfusion_mit_intree", "BEVFusion SparseEncoder on its own spconv 1.x", MIT,
            encoder(MIT_ENCODER, "SparseEncoder", xyz=True, layers="mmdet3d.ops.spconv.conv", **XYZ), (0,),
            {"axes": "xyz"}),
    Network("transfusion", "TransFusion SparseEncoder", TRANSFUSION,
            encoder(ENCODER, "SparseEncoder", **CENTERPOINT), (0,), aliases=OLD),
    Network("uvtr", "UVTR SparseEncoderHD", "dvlab-research/UVTR",
            encoder(HD, "SparseEncoderHD", **HD_SIZES), (0,), aliases=OLD, also=(TRANSFUSION,)),
    Network("uvtr_sum", "UVTR SparseEncoderHD, keep_depth=False", "dvlab-research/UVTR",
            encoder(HD, "SparseEncoderHD", keep_depth=False, **HD_SIZES), (0,), aliases=OLD,
            also=(TRANSFUSION,)),
    Network("fsd_unet", "SST SimpleSparseUNet (FSD)", "tusen-ai/SST", simple_unet, ((0, "voxel_feats"),),
            {"batch_size": 1}),
    Network("fsdv2_mixer", "SST VirtualVoxelMixer (FSDv2)", "tusen-ai/SST", mixer, (0,)),
)  # fmt: skip
