# SPDX-License-Identifier: Apache-2.0
"""U-Nets of indoor and outdoor segmentation: Pointcept, PointGroup and its successors, Cylinder3D."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.models.originals.checkout import SPCONV_1, Checkout
from benchmarks.models.originals.network import Case, Config, Network, Wrapped, voxels
from benchmarks.models.stages import ATTENTION

__all__ = ["NETWORKS"]

GRID = (128, 128, 64)
EPS = functools.partial(nn.BatchNorm1d, eps=1e-4, momentum=0.1)


def frame(checkout: Checkout, channels: int) -> Any:
    """An spconv tensor of a frame."""
    import spconv.pytorch as spconv

    features, indices = voxels(channels, GRID, checkout.voxels)
    return spconv.SparseConvTensor(features, indices, [65, 128, 128], 1)


def points(checkout: Checkout, model: nn.Module) -> Case:
    """Pointcept's dictionary of a frame: rows of a cloud's points, of which the forward makes indices."""
    features, indices = voxels(6, GRID, checkout.voxels)
    cloud = {"grid_coord": indices[:, 1:].long(), "feat": features, "offset": torch.tensor([len(features)])}
    return Case(model, (cloud,), frame=(features, indices))


def spunet(checkout: Checkout) -> Case:
    """SpUNet as published."""
    made = checkout.load("pointcept.models.sparse_unet.spconv_unet_v1m1_base").SpUNetBase
    return points(checkout, made(6, 20))


def spunet_body(checkout: Checkout) -> Case:
    """SpUNet from conv_input on; output 1 is its encoder."""

    def forward(self: Any, x: Any) -> Any:
        net = self.net
        x = net.conv_input(x)
        skips = [x]
        for down, stage in zip(net.down, net.enc, strict=True):
            x = stage(down(x))
            skips.append(x)
        deepest = skips.pop()
        x = deepest
        for number in reversed(range(net.num_stages)):
            x = net.up[number](x)
            x = net.dec[number](x.replace_feature(torch.cat((x.features, skips.pop().features), dim=1)))
        return net.final(x).features, deepest

    return Case(Wrapped(forward, net=spunet(checkout).model), (frame(checkout, 6),))


def oacnns(checkout: Checkout) -> Case:
    """OA-CNNs as published."""
    return points(checkout, checkout.load("pointcept.models.oacnns.oacnns_v1m1_base").OACNNs(6, 20))


def ptv3(checkout: Checkout) -> Case:
    """The convolution of a block of Point Transformer V3 and what follows it."""
    import spconv.pytorch as spconv

    made = checkout.load("pointcept.models.point_transformer_v3.point_transformer_v3m1_base").Block
    block = made(32, 2, cpe_indice_key="stage0", enable_flash=False)

    def forward(self: Any, x: Any) -> Any:
        for layer in self.cpe:
            sparse = isinstance(layer, spconv.modules.SparseModule)
            x = layer(x) if sparse else x.replace_feature(layer(x.features))
        return x

    return Case(Wrapped(forward, cpe=nn.Sequential(*block.cpe.children())), (frame(checkout, 32),))


def pointgroup(checkout: Checkout) -> nn.Module:
    """PointGroup with its published sizes."""
    config = Config(
        input_channel=3, m=16, classes=20, block_reps=2, block_residual=True, use_coords=True,
        cluster_radius=0.03, cluster_meanActive=50, cluster_shift_meanActive=300, cluster_npoint_thre=50,
        score_scale=50, score_fullscale=14, score_mode=4, prepare_epochs=128, pretrain_path=None,
        pretrain_module=[], fix_module=[],
    )  # fmt: skip
    return checkout.load("model.pointgroup.pointgroup").PointGroup(config)  # type: ignore[no-any-return]


def pointgroup_whole(checkout: Checkout) -> Case:
    """PointGroup as published, up to its heads: rows are those of points."""
    x = frame(checkout, 6)
    rows = torch.arange(len(x.features), dtype=torch.int32)
    return Case(pointgroup(checkout), (x, rows, torch.zeros(len(rows), 3), rows * 0, torch.tensor([0]), 0))


def in_row(self: Any, x: Any) -> Any:
    """input_conv, unet and output_layer, as their repositories call them."""
    x = self.unet(self.input_conv(x))
    return self.output_layer(x[0] if isinstance(x, tuple) else x)


def pointgroup_unet(checkout: Checkout) -> Case:
    """PointGroup's U-Net."""
    net = pointgroup(checkout)
    parts = {name: getattr(net, name) for name in ("input_conv", "unet", "output_layer")}
    return Case(Wrapped(in_row, **parts), (frame(checkout, 6),))


def softgroup(checkout: Checkout) -> Case:
    """SoftGroup's backbone with its heads: its own method."""
    net = checkout.load("softgroup.model.softgroup").SoftGroup(channels=16, num_blocks=7)

    def forward(self: Any, x: Any, rows: torch.Tensor) -> Any:
        return self.net.forward_backbone(x, rows, lvl_fusion=True)

    x = frame(checkout, 6)
    return Case(Wrapped(forward, net=net), (x, torch.arange(len(x.features), dtype=torch.int32)))


def unet(module: str, name: str, **options: Any) -> Callable[[Checkout], Case]:
    """A U-Net of SPFormer's kind between a first convolution and a last BatchNorm."""

    def build(checkout: Checkout) -> Case:
        import spconv.pytorch as spconv

        made = getattr(checkout.load(module), name)
        if name == "UBlock":
            block = checkout.load(module).ResidualBlock
            net = made([32, 64, 96, 128, 160], EPS, 2, block, indice_key_id=1, **options)
        else:
            net = made([32, 64, 96, 128, 160], EPS, 2, indice_key_id=1, **options)
        first = spconv.SparseSequential(
            spconv.SubMConv3d(6, 32, 3, padding=1, bias=False, indice_key="subm1")
        )
        last = spconv.SparseSequential(EPS(32), nn.ReLU(inplace=True))
        return Case(Wrapped(in_row, input_conv=first, unet=net, output_layer=last), (frame(checkout, 6),))

    return build


def sphereformer(checkout: Checkout) -> Case:
    """SphereFormer's U-Net without its transformer blocks."""
    made = checkout.load("model.unet_spherical_transformer").Semantic
    size = [0.3, 0.3, 0.3]
    model = made(
        input_c=4, m=32, classes=19, block_reps=2, block_residual=True, layers=[32, 64, 128, 256, 256],
        window_size=size, window_size_sphere=[2, 2, 80], quant_size=size, quant_size_sphere=[1, 1, 4],
        window_size_scale=[2.0, 1.5], drop_path_rate=0.3, sphere_layers=[],
    )  # fmt: skip
    x = frame(checkout, 4)
    return Case(model, (x, x.indices[:, 1:].float(), x.indices[:, 0].long()))


def cylinder(keys: bool) -> Callable[[Checkout], Case]:
    """Cylinder3D's U-Net; `keys` gives each kernel shape an indice_key of its own, as spconv 2.x asks."""

    def build(checkout: Checkout) -> Case:
        import spconv.pytorch as spconv

        made = checkout.load("network.segmentator_3d_asymm_spconv").Asymm_3d_spconv
        model = made([96, 72, 32], num_input_features=16, nclasses=20, init_size=32)
        for module in model.modules() if keys else ():
            if isinstance(module, spconv.SubMConv3d):
                module.indice_key += "x".join(map(str, module.kernel_size))
        features, indices = voxels(16, (32, 72, 95), checkout.voxels)
        return Case(model, (features, indices, 1))

    return build


POINTCEPT = "Pointcept/Pointcept"
SHAPE = {"batch_size": 1, "spatial_shape": (65, 128, 128)}
POINTGROUP = {**SPCONV_1, "util": ""}  # which reads the command line
ONE = "oneformer3d.spconv_unet"

NETWORKS = (
    Network("spunet", "Pointcept SpUNet-v1m1", POINTCEPT, spunet, (0,), SHAPE),
    Network("spunet_body", "Pointcept SpUNet-v1m1 from conv_input on", POINTCEPT, spunet_body, (0, 1)),
    Network("oacnns", "Pointcept OA-CNNs", POINTCEPT, oacnns, (0,), SHAPE,
            outside=ATTENTION),
    Network("ptv3_cpe", "Point Transformer V3, the convolution of a block", POINTCEPT, ptv3, (0,),
            outside="LayerNorm"),
    Network("pointgroup", "PointGroup", "dvlab-research/PointGroup", pointgroup_whole,
            ("semantic_scores",), aliases=POINTGROUP, outside="gathers rows for points"),
    Network("pointgroup_unet", "PointGroup's U-Net", "dvlab-research/PointGroup", pointgroup_unet, (0,),
            aliases=POINTGROUP),
    Network("softgroup", "SoftGroup.forward_backbone", "thangvubk/SoftGroup", softgroup, (0, 1, 2)),
    Network("spformer", "SPFormer's U-Net", "sunjiahao1999/SPFormer",
            unet("spformer.model.backbone", "UBlock", return_blocks=True), (0,)),
    Network("oneformer3d", "OneFormer3D SpConvUNet, normalize_before=True", "oneformer3d/oneformer3d",
            unet(ONE, "SpConvUNet", return_blocks=True), (0,), also=("open-mmlab/mmdetection3d",)),
    Network("oneformer3d_post", "OneFormer3D SpConvUNet, normalize_before=False", "oneformer3d/oneformer3d",
            unet(ONE, "SpConvUNet", normalize_before=False), (0,), also=("open-mmlab/mmdetection3d",)),
    Network("sphereformer", "SphereFormer's U-Net without transformer blocks",
            "dvlab-research/SphereFormer", sphereformer, (0,), outside="reads spconv's rulebook"),
    Network("cylinder3d", "Cylinder3D Asymm_3d_spconv", "xinge008/Cylinder3D", cylinder(False), (0,),
            aliases=SPCONV_1, outside="a key that spconv 2.x refuses too"),
    Network("cylinder3d_keys", "Cylinder3D Asymm_3d_spconv, keys of its own for each kernel shape",
            "xinge008/Cylinder3D", cylinder(True), (0,), aliases=SPCONV_1,
            outside="product of features"),
)  # fmt: skip
