# SPDX-License-Identifier: Apache-2.0
"""Indices know their grid as long as it is certain; a network refuses those of another."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from scn_fx.errors import GridError, LidarError
from scn_fx.lidar import (
    GRIDS,
    NetworkGrid,
    SiteIndices,
    VoxelGrid,
    collate,
    embedded_frame,
    grid_of,
    synthetic_points,
    voxelize,
)

HALL = VoxelGrid((-4.0, -4.0, -1.0, 4.0, 4.0, 1.0), (0.1, 0.2, 0.25))
SHIFTED = VoxelGrid((-3.0, -4.0, -1.0, 5.0, 4.0, 1.0), (0.1, 0.2, 0.25))
POINTS = synthetic_points(sweeps=1)


def test_indices_know_their_grid_until_they_are_changed() -> None:
    features, indices = voxels = voxelize(POINTS, HALL)
    assert voxels.grid is HALL and grid_of(voxels) is grid_of(indices) is grid_of((features, indices)) is HALL
    assert isinstance(indices, SiteIndices) and isinstance(indices, np.ndarray)
    derived = (indices[:5], indices + 1, indices.copy(), np.asarray(indices), torch.from_numpy(indices))
    assert [grid_of(other) for other in derived] == [None] * 5
    assert grid_of(pickle.loads(pickle.dumps(indices))) is None and grid_of(None) is None
    assert grid_of(embedded_frame()) is grid_of(embedded_frame().indices) is GRIDS["centerpoint"]


def test_batches_are_of_one_grid() -> None:
    a, b = voxelize(POINTS, HALL), voxelize(POINTS, SHIFTED)
    assert grid_of(collate([a, tuple(a)])) is HALL
    assert grid_of(collate([a, (a.features, np.asarray(a.indices))])) is None
    with pytest.raises(
        LidarError, match=r"frames of one grid, got 9 x 40 x 80 .*(-4, -4, -1).* and .*(-3, -4, -1)"
    ):
        collate([a, tuple(b)])


def test_a_network_with_a_grid() -> None:
    network = NetworkGrid("the graph", HALL, HALL.spatial_shape)
    for frame in (
        voxelize(POINTS, replace(HALL, max_points=2, arithmetic="float64")),
        (1, 2),
        np.zeros((1, 4)),
    ):
        network.check(frame)
    with pytest.raises(
        GridError, match=r"^Frame 3 was voxelised in the grid .* but the graph takes .*Voxelise"
    ):
        network.check(voxelize(POINTS, SHIFTED), "Frame 3")
    assert network.require(None, "--grid") is HALL
    finer = replace(HALL, max_points=5)
    assert network.require(finer, "--grid") is finer
    with pytest.raises(GridError, match=r"^--grid is the grid .* but the graph takes"):
        network.require(SHIFTED, "--grid")


def test_a_network_that_knows_its_shape_alone() -> None:
    network = NetworkGrid("the file a.onnx", None, (41, 1504, 1504))
    network.check(voxelize(POINTS, GRIDS["waymo"]))
    network.check(voxelize(POINTS, GRIDS["once"]))
    with pytest.raises(GridError, match=r"the file a.onnx takes sites in 41 x 1504 x 1504"):
        network.check(voxelize(POINTS, GRIDS["nuscenes"]))
    with pytest.raises(GridError, match="with extra_z=1 if range and voxel size are right"):
        network.check(voxelize(POINTS, replace(GRIDS["waymo"], extra_z=0)))
    with pytest.raises(GridError, match=r"does not record one.*preset\(s\) waymo, once\. Pass --grid"):
        network.require(None, "--grid")
    with pytest.raises(GridError, match=r"the graph does not record one. Pass --grid"):
        NetworkGrid("the graph").require(None, "--grid")


def test_column_order() -> None:
    network = NetworkGrid("the graph", HALL, HALL.spatial_shape, "xyz")
    indices = voxelize(POINTS, HALL).indices
    with pytest.raises(GridError, match=r"expected indices \(batch, x, y, z\).*indices\[:, \[0, 3, 2, 1\]\]"):
        network.check(indices)
    turned = network.columns(indices)
    network.check(turned)
    assert np.array_equal(turned, np.asarray(indices)[:, [0, 3, 2, 1]])
    assert NetworkGrid("the graph", HALL).columns(indices) is indices
