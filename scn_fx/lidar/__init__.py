# SPDX-License-Identifier: Apache-2.0
"""LiDAR input: point files, voxels and a synthetic sensor. Needs NumPy only."""

from scn_fx.lidar.batches import collate
from scn_fx.lidar.formats import POINT_FORMATS, Column, PointFormat
from scn_fx.lidar.frames import DATA_VARIABLE, Frame, demo_frames, embedded_frame, real_frames
from scn_fx.lidar.grid_files import GRID_SYNTAX, parse_grid, read_grid
from scn_fx.lidar.grids import ARITHMETICS, CENTERPOINT_GRID, GRIDS, KITTI_GRID, VoxelGrid
from scn_fx.lidar.point_files import voxelize_from
from scn_fx.lidar.readers import guess_format, read_points, read_sweep, with_time_lag
from scn_fx.lidar.scene import Disc, Ground, Prism, Rectangle, Scene, street_scene
from scn_fx.lidar.sites import NetworkGrid, SiteIndices, grid_of
from scn_fx.lidar.synthetic import EgoMotion, SpinningLidar, simulate, synthetic_points
from scn_fx.lidar.tensor_file import TENSOR_DTYPES, read_tensor, write_tensor
from scn_fx.lidar.voxels import Voxels, voxelize

__all__ = [
    "ARITHMETICS",
    "CENTERPOINT_GRID",
    "DATA_VARIABLE",
    "GRIDS",
    "GRID_SYNTAX",
    "KITTI_GRID",
    "POINT_FORMATS",
    "TENSOR_DTYPES",
    "Column",
    "Disc",
    "EgoMotion",
    "Frame",
    "Ground",
    "NetworkGrid",
    "PointFormat",
    "Prism",
    "Rectangle",
    "Scene",
    "SiteIndices",
    "SpinningLidar",
    "VoxelGrid",
    "Voxels",
    "collate",
    "demo_frames",
    "embedded_frame",
    "grid_of",
    "guess_format",
    "parse_grid",
    "read_grid",
    "read_points",
    "read_sweep",
    "read_tensor",
    "real_frames",
    "simulate",
    "street_scene",
    "synthetic_points",
    "voxelize",
    "voxelize_from",
    "with_time_lag",
    "write_tensor",
]
