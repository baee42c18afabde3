# SPDX-License-Identifier: Apache-2.0
"""From the head's maps to boxes: peaks of the heatmap, the best of them, and what the box map says there."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from scn_fx.detection.head import HeadOutput
from scn_fx.lidar.boxes import Boxes
from scn_fx.lidar.grids import VoxelGrid

__all__ = ["VELOCITY_UNIT", "decode"]

VELOCITY_UNIT = 10.0
"""m/s of a one in the map: about the size of the other numbers."""

_LARGEST_LOG = 4.0  # of a size: 55 m; a wild head must not overflow


@torch.no_grad()
def decode(output: HeadOutput, grid: VoxelGrid, *, most: int = 200, min_score: float = 0.03) -> list[Boxes]:
    """The boxes of each frame of a batch, highest score first.

    A cell is a peak if no cell in the 3 x 3 around it has a higher logit of the same class (equal neighbours
    are all peaks). Of all peaks of a frame the `most` best whose score, the sigmoid of the logit, is at least
    `min_score` become boxes; equal scores go by class, then row, then column, so that equal maps give
    equal boxes, bit for bit, on one device.
    """
    heat, box = output.heat.float(), output.box.float()
    count, _, rows, columns = heat.shape
    peak = heat == F.max_pool2d(heat, 3, 1, 1)
    ranked = torch.where(peak, heat, -torch.inf).flatten(1)
    # A stable sort: torch.topk leaves open which of equals come first.
    best, at = torch.sort(ranked, dim=1, descending=True, stable=True)
    best, at = best[:, :most].cpu(), at[:, :most].cpu()
    maps = box.cpu()
    edge_x = (grid.point_range[3] - grid.point_range[0]) / columns
    edge_y = (grid.point_range[4] - grid.point_range[1]) / rows
    found = []
    for i in range(count):
        score = torch.sigmoid(best[i])
        keep = score >= min_score
        score, place = score[keep], at[i][keep]
        label, cell = torch.div(place, rows * columns, rounding_mode="floor"), place % (rows * columns)
        y, x = torch.div(cell, columns, rounding_mode="floor"), cell % columns
        values = maps[i][:, y, x].t()
        centre = torch.stack(
            [
                grid.point_range[0] + (x + values[:, 0]) * edge_x,
                grid.point_range[1] + (y + values[:, 1]) * edge_y,
                values[:, 2],
            ],
            1,
        )
        size = values[:, 3:6].clamp(-_LARGEST_LOG, _LARGEST_LOG).exp()
        yaw = torch.atan2(values[:, 6], values[:, 7])
        velocity = values[:, 8:10] * VELOCITY_UNIT
        fields = {"centre": centre, "size": size, "yaw": yaw, "label": label, "velocity": velocity}
        made = {name: part.numpy() for name, part in {**fields, "score": score}.items()}
        found.append(Boxes.of(**made))
    return found
