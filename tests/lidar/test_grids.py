# SPDX-License-Identifier: Apache-2.0
"""Grids from names, numbers and files; rounded ones; and the refusal of everything that is none."""

from __future__ import annotations

import builtins
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx.errors import LidarError, MissingPackageError
from scn_fx.lidar import CENTERPOINT_GRID, GRIDS, KITTI_GRID, VoxelGrid, parse_grid, read_grid

HALL = VoxelGrid((-4.0, -4.0, -1.0, 4.0, 4.0, 1.0), (0.1, 0.1, 0.25))

MODEL_YAML = """
CLASS_NAMES: ['Car']
DATA_CONFIG:
    _BASE_CONFIG_: cfgs/dataset_configs/own_dataset.yaml
    DATA_PROCESSOR:
        - NAME: mask_points_and_boxes_outside_range
          REMOVE_OUTSIDE_BOXES: True
        - NAME: transform_points_to_voxels
          VOXEL_SIZE: [0.3, 0.3, 0.2]
          MAX_POINTS_PER_VOXEL: 5
          MAX_NUMBER_OF_VOXELS: {'train': 16000, 'test': 40000}
MODEL: {NAME: SECONDNet}
"""
DATASET_YAML = """
DATASET: OwnDataset
POINT_CLOUD_RANGE: [-50, -50, -5, 50, 50, 3]
DATA_PROCESSOR:
    - NAME: transform_points_to_voxels
      VOXEL_SIZE: [0.5, 0.5, 0.4]
      MAX_POINTS_PER_VOXEL: 10
"""


def _write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_presets_by_name() -> None:
    for name, grid in GRIDS.items():
        assert parse_grid(name) is grid and parse_grid(f" {name.upper()} ") is grid


@pytest.mark.parametrize(
    "text",
    [
        "0,-40,-3,70.4,40,1,0.05,0.05,0.1",
        "0, -40, -3, 70.4, 40, 1, 0.05, 0.05, 0.1",
        "0 -40 -3 70.4 40 1 0.05 0.05 0.1",
        "0,-40,-3,70.4,40,1:0.05,0.05,0.1",
        "[0, -40, -3, 70.4, 40, 1], [0.05, 0.05, 0.1]",
    ],
)
def test_nine_numbers(text: str) -> None:
    assert parse_grid(text) == KITTI_GRID


def test_own_files(tmp_path: Path) -> None:
    own = {**HALL.to_dict(), "extra_z": 0, "max_points": 7}
    expected = replace(HALL, extra_z=0, max_points=7)
    assert parse_grid(str(_write(tmp_path / "grid.json", own))) == expected
    text = "point_range: [-4, -4, -1, 4, 4, 1]\nvoxel_size: [0.1, 0.1, 0.25]\nextra_z: 0\nmax_points: 7\n"
    assert parse_grid(str(_write(tmp_path / "grid.yaml", text))) == expected


def test_configurations_of_others(tmp_path: Path) -> None:
    bevfusion = (
        "voxel_size: [0.075, 0.075, 0.2]\npoint_cloud_range: [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]\nx: 1\n"
    )
    assert read_grid(_write(tmp_path / "default.yaml", bevfusion)) == CENTERPOINT_GRID
    dataset = _write(tmp_path / "tools/cfgs/dataset_configs/own_dataset.yml", DATASET_YAML)
    assert read_grid(dataset) == VoxelGrid((-50, -50, -5, 50, 50, 3), (0.5, 0.5, 0.4), max_points=10)
    base = _write(tmp_path / "tools/cfgs/dataset_configs/own_dataset.yaml", DATASET_YAML)
    model = _write(tmp_path / "tools/cfgs/own_models/second.yaml", MODEL_YAML)
    rounded = VoxelGrid((-50, -50, -5, 49.9, 49.9, 3), (0.3, 0.3, 0.2), max_points=5)
    assert read_grid(model) == rounded and rounded.spatial_shape == (41, 333, 333)
    base.unlink()
    with pytest.raises(
        LidarError, match=r"own_dataset.yaml', which is neither beside it nor in a folder above"
    ):
        read_grid(model)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "expected a JSON file, got text that is none"),
        ("a.yaml", "a: [", "expected a YAML file, got text that is none"),
        ("a.json", [1], "expected a mapping .*, got list"),
        ("a.yaml", "", "expected a mapping .*, got NoneType"),
        ("a.json", {"point_range": [0] * 6}, "expected point_range and voxel_size"),
        ("a.json", {**HALL.to_dict(), "extraz": 1}, "expected point_range and voxel_size.*extraz"),
        ("a.json", {"point_range": [0, 1], "voxel_size": [1, 1, 1]}, "a.json: A grid needs six range values"),
        ("a.json", {"point_range": None, "voxel_size": 1}, "a.json: A grid needs six range values"),
        ("a.json", {"point_range": ["a"] * 6, "voxel_size": [1, 1, 1]}, "A grid needs six range values"),
        (
            "a.json",
            {"MODEL": 1},
            "expected a range as point_cloud_range or POINT_CLOUD_RANGE, got none .*MODEL",
        ),
        (
            "a.json",
            {"POINT_CLOUD_RANGE": [0, 0, 0, 1, 1, 1]},
            "expected a voxel size as voxel_size or VOXEL_SIZE",
        ),
        (
            "a.json",
            {"POINT_CLOUD_RANGE": [0] * 6, "DATA_PROCESSOR": [{"VOXEL_SIZE": [1] * 3}] * 2},
            "expected one VOXEL_SIZE in DATA_PROCESSOR, got 2",
        ),
        (
            "a.json",
            {"point_cloud_range": [0] * 6, "POINT_CLOUD_RANGE": [0] * 6},
            "got point_cloud_range and POINT",
        ),
        ("a.json", {"point_cloud_range": [0, 0, 0, 1, 1, 1.5], "voxel_size": [1] * 3}, "1 m or 2 m"),
        ("a.py", "voxel_size = [1, 1, 1]", "A Python configuration is not run"),
    ],
)
def test_files_without_a_grid(tmp_path: Path, name: str, content: object, message: str) -> None:
    with pytest.raises(LidarError, match=message):
        parse_grid(str(_write(tmp_path / name, content)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "mars",
            "Expected a grid as a preset .centerpoint, kitti, nuscenes.*nine numbers.*JSON file.*got 'mars'",
        ),
        ("", "Expected a grid as a preset"),
        ("1,2,3", "has nine of them, X0,Y0,Z0,X1,Y1,Z1,VX,VY,VZ, got 3"),
        ("0,0,0,1,1,1,0.3,1,1", "Axis x needs a whole number of voxels, got 3.3333.*0.9 or 1.2 m"),
        ("0,0,0,1,1,nan,1,1,1", "finite numbers"),
        ("gone.yaml", "gone.yaml: expected a file, but there is none"),
    ],
)
def test_texts_that_are_no_grid(text: str, message: str) -> None:
    with pytest.raises(LidarError, match=message):
        parse_grid(text)


def test_yaml_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "grid.yaml", "point_range: 1\n")
    original = builtins.__import__

    monkeypatch.delitem(sys.modules, "scn_fx.files.yaml_text", raising=False)

    def without_yaml(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_yaml)
    with pytest.raises(MissingPackageError, match=r"needs the package 'pyyaml'.*scn-fx\[cli\]"):
        read_grid(path)


def test_rounded_ranges() -> None:
    assert VoxelGrid.rounded((-50, -50, -5, 50, 50, 3), (0.3, 0.3, 0.2)).spatial_shape == (41, 333, 333)
    assert VoxelGrid.rounded(KITTI_GRID.point_range, KITTI_GRID.voxel_size) == KITTI_GRID
    up = VoxelGrid.rounded((0, 0, 0, 1, 1, 1), (0.15, 0.5, 0.5), extra_z=0)
    assert up.point_range[3] == 1.05 and up.spatial_shape == (2, 2, 7)
    with pytest.raises(LidarError, match=r"Axis x has 2.5 voxels .* 0.8 m or 1.2 m"):
        VoxelGrid.rounded((0, 0, 0, 1, 1, 1), (0.4, 1, 1))
    for bad in (
        ((0, 0, 0, 1, 1), (1, 1, 1)),
        ((0, 0, 0, 1, 1, 1), (0, 1, 1)),
        ((0, 0, 0, 0.1, 1, 1), (1, 1, 1)),
    ):
        with pytest.raises(LidarError):
            VoxelGrid.rounded(*bad)


grids = st.builds(
    lambda low, edge, count, extra, arithmetic, most: VoxelGrid(
        (*low, *(a + n * edge for a, n in zip(low, count, strict=True))),  # type: ignore[arg-type]
        (edge, edge, edge),
        extra,
        arithmetic,
        most,
    ),
    st.tuples(*[st.integers(-3000, 3000).map(lambda n: n / 37)] * 3),
    st.sampled_from([0.05, 0.075, 0.1, 0.17, 1 / 3]),
    st.tuples(*[st.integers(1, 2000)] * 3),
    st.integers(0, 3),
    st.sampled_from(["float32", "float64"]),
    st.one_of(st.none(), st.integers(1, 40)),
)


@given(grid=grids)
def test_grids_survive_json_and_metadata(grid: VoxelGrid) -> None:
    assert VoxelGrid.from_dict(json.loads(json.dumps(grid.to_dict()))) == grid
    assert VoxelGrid.from_text({"other": "1", **grid.to_text()}) == grid
    assert parse_grid(",".join(map(repr, (*grid.point_range, *grid.voxel_size)))).same_voxels(
        replace(grid, extra_z=1)
    )


def test_damaged_texts_and_fields() -> None:
    assert VoxelGrid.from_text({"scn_fx.version": "1"}) is None
    text = HALL.to_text()
    with pytest.raises(LidarError, match=r"scn_fx.grid.voxel_size should be numbers, got '0.1,x'"):
        VoxelGrid.from_text({**text, "scn_fx.grid.voxel_size": "0.1,x"})
    with pytest.raises(
        LidarError, match="first two of which must be there; got voxel_size, extra_z, arithmetic"
    ):
        VoxelGrid.from_text({key: value for key, value in text.items() if "range" not in key})
    with pytest.raises(LidarError, match="got point_range, voxel_size, more"):
        VoxelGrid.from_dict({"point_range": [0] * 6, "voxel_size": [1] * 3, "more": 1})


def test_same_voxels_compares_as_float32() -> None:
    single = VoxelGrid(
        tuple(np.array(CENTERPOINT_GRID.point_range, np.float32)),  # type: ignore[arg-type]
        tuple(np.array(CENTERPOINT_GRID.voxel_size, np.float32)),
        arithmetic="float64",
        max_points=3,
    )
    assert single.same_voxels(CENTERPOINT_GRID) and single != CENTERPOINT_GRID
    for other in (KITTI_GRID, replace(CENTERPOINT_GRID, extra_z=0), GRIDS["nuscenes"]):
        assert not other.same_voxels(CENTERPOINT_GRID)
    assert not GRIDS["waymo"].same_voxels(GRIDS["once"]), "one shape, other space"


def test_grids_introduce_themselves() -> None:
    assert str(KITTI_GRID).startswith("kitti: 41 x 1600 x 1408 (z, y, x) voxels of 0.05 x 0.05 x 0.1 m")
    assert (
        str(HALL)
        == "9 x 80 x 80 (z, y, x) voxels of 0.1 x 0.1 x 0.25 m (x, y, z) from (-4, -4, -1) to (4, 4, 1) m"
    )


def test_truth_values_are_no_numbers() -> None:
    with pytest.raises(LidarError, match="three voxel edges"):
        VoxelGrid((0, 0, 0, 1, 1, 1), (True, 0.5, 0.5))
