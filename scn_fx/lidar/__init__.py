# SPDX-License-Identifier: Apache-2.0
"""LiDAR input: point files, voxels and a synthetic sensor. Needs NumPy only."""

from scn_fx.lidar.frames import DATA_VARIABLE, Frame, demo_frames, embedded_frame, real_frames
from scn_fx.lidar.readers import POINT_FORMATS, PointFormat, guess_format, read_points, with_time_lag
from scn_fx.lidar.scene import Disc, Ground, Prism, Rectangle, Scene, street_scene
from scn_fx.lidar.synthetic import EgoMotion, SpinningLidar, simulate, synthetic_points
from scn_fx.lidar.tensor_file import TENSOR_DTYPES, read_tensor, write_tensor
from scn_fx.lidar.voxels import CENTERPOINT_GRID, GRIDS, KITTI_GRID, VoxelGrid, Voxels, collate, voxelize

__all__ = [
    "CENTERPOINT_GRID",
    "DATA_VARIABLE",
    "GRIDS",
    "KITTI_GRID",
    "POINT_FORMATS",
    "TENSOR_DTYPES",
    "Disc",
    "EgoMotion",
    "Frame",
    "Ground",
    "PointFormat",
    "Prism",
    "Rectangle",
    "Scene",
    "SpinningLidar",
    "VoxelGrid",
    "Voxels",
    "collate",
    "demo_frames",
    "embedded_frame",
    "guess_format",
    "read_points",
    "read_tensor",
    "real_frames",
    "simulate",
    "street_scene",
    "synthetic_points",
    "voxelize",
    "with_time_lag",
    "write_tensor",
]
