# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks models`: its stages, its page, and the import of files whose packages are missing."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.__main__ import main
from benchmarks.models import stages
from benchmarks.models.originals.checkout import opened
from benchmarks.models.originals.network import Case, Network
from benchmarks.models.originals.run import NETWORKS, original_results
from benchmarks.models.originals.shims import build_conv_layer
from benchmarks.models.stages import DENSE, Result, run_stages
from benchmarks.models.table import refusals, row, summary, table, write_part
from benchmarks.models.zoo import DEFINITIONS
from scn_fx.errors import ArgumentError
from scn_fx.zoo import SecondEncoder, demo_frame

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "models.md"


def part(name: str) -> list[list[str]]:
    """Rows of a table of the page, its head first."""
    text = re.search(
        rf"<!-- {name} -->(.*)<!-- end of {name} -->", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert text is not None
    lines = [line for line in text[1].splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_page_has_every_definition_and_output_and_all_of_them_run() -> None:
    head, *rows = part("zoo")
    assert head == table([]).splitlines()[0].strip("| ").split(" | ")
    expected = [[d.name, f"`{output!r}`"] for d in DEFINITIONS for output in d.outputs]
    assert [cells[:2] for cells in rows] == expected
    assert all(cells[3:8] == ["ok", "ok", "ok", "ok", "identical"] for cells in rows)


def test_published_networks_on_the_page_are_those_of_the_recipes() -> None:
    """None is there before somebody has run them; then all are."""
    found = part("originals")
    expected = [[network.title, f"`{output!r}`"] for network in NETWORKS for output in network.outputs]
    assert not found or [cells[:2] for cells in found[1:]] == expected


def test_keys_and_titles_of_recipes_are_distinct() -> None:
    assert len({network.key for network in NETWORKS}) == len({network.title for network in NETWORKS})
    assert len({network.key for network in NETWORKS}) == len(NETWORKS)


def test_a_small_network_passes_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    arguments = ["models", "--small", "--only", "SpUNet", "--voxels", "200", "--json", str(report)]
    assert main(arguments) == 0
    (found,) = json.loads(report.read_text())
    assert found["ok"] and found["dialect"] == "libspconv" and found["difference"] < 1e-4
    assert "| SpUNet | `0` |" in capsys.readouterr().out


class Sorting(nn.Module):
    """A layer, and a forward that sorts sites by values."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SecondEncoder(4, grid=(64, 64, 40))

    def forward(self, batch: dict[str, Any]) -> Any:
        x = self.net.conv_input[0](sparse(batch))
        return x.features[x.features[:, 0].sort().indices]


def sparse(batch: dict[str, Any]) -> Any:
    import spconv.pytorch as spconv

    return spconv.SparseConvTensor(batch["voxel_features"], batch["voxel_coords"], [41, 64, 64], 1)


def test_a_refusal_is_a_result_with_message_and_place() -> None:
    features, indices = demo_frame(0, 200, grid=(64, 64, 40), in_channels=4)
    args = ({"voxel_features": features, "voxel_coords": indices},)
    result = run_stages("sorting", Sorting().eval(), args, 0)
    assert not result.ok and result.failed == "capture"
    assert "Sorting" in result.message and result.place.startswith("scn_fx/")
    assert row(result)[3:] == ["refused", *["-"] * 7]
    assert refusals([result]).startswith("- sorting, `0` (capture, scn_fx/")


class FromTheFrame(nn.Module):
    """A strided layer on the grid that the frame fills."""

    def __init__(self) -> None:
        super().__init__()
        import spconv.pytorch as spconv

        self.down = spconv.SparseConv3d(4, 8, 2, stride=2, bias=False)

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> Any:
        import spconv.pytorch as spconv

        shape = [int(size) + 1 for size in indices[:, 1:].max(0).values]
        return self.down(spconv.SparseConvTensor(features, indices, spatial_shape=shape, batch_size=1))


def test_spconv_runs_on_the_grid_that_capture_was_given() -> None:
    """On the frame's own grid the last sites have no place in the next level."""
    features, indices = demo_frame(0, 200, grid=(63, 63, 39), in_channels=4)
    assert (indices[:, 1:].max(0).values % 2 == 0).any()
    options = {"batch_size": 1, "spatial_shape": (40, 64, 64)}
    result = run_stages("own grid", FromTheFrame().eval(), (features, indices), 0, options=options)
    assert result.ok and not result.spconv
    assert result.difference is not None and result.difference < 1e-5


def test_a_graph_that_computes_something_else_has_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "eager_difference", lambda *args: 0.5)
    frame = demo_frame(0, 200, grid=(64, 64, 40), in_channels=4)
    result = run_stages("wrong", FromTheFrame().eval(), frame, 0, options={"spatial_shape": (40, 64, 64)})
    assert (result.ok, result.failed) == (False, "spconv")
    assert result.message == "The float graph differs from spconv by 5e-01 of its largest value."


def test_the_summary_counts_refusals_by_reason() -> None:
    passed = [Result("net", i, {}) for i in range(3)]
    assert summary(passed) == "3 pairs of network and output: 3 pass every stage."
    refused = [
        Result("net", reason, {}, "capture", "no", outside=reason) for reason in (DENSE, DENSE, "pooling", "")
    ]
    assert summary([*passed, *refused]) == (
        f"7 pairs of network and output: 3 pass every stage, 2 end in what scn-fx leaves outside on purpose "
        f"({DENSE}: 2), and 2 are refused for other reasons (pooling: 1; unexpected: 1)."
    )


def test_a_network_may_have_a_reason_for_each_output() -> None:
    def network(outside: Any) -> Network:
        return Network(
            "key", "title", "owner/name", lambda checkout: Case(nn.Identity(), ()), (0,), outside=outside
        )

    assert network({(1, 2): "pooling"}).reason((1, 2)) == "pooling" and not network({}).reason(0)
    assert network("pooling").reason(0) == "pooling"


def test_a_part_of_a_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- zoo -->\nold\n<!-- end of zoo -->\nafter\n")
    write_part(page, "zoo", r"new \1")
    assert page.read_text() == "before\n<!-- zoo -->\n\nnew \\1\n\n<!-- end of zoo -->\nafter\n"
    with pytest.raises(ValueError, match="no part between <!-- other -->"):
        write_part(page, "other", "")


FILES = {
    "pkg/__init__.py": "raise ImportError('a CUDA extension')\n",  # never run
    "pkg/models/__init__.py": "from .norms import norm\nfrom ..helper import helper\nfrom .more import *\n",
    "pkg/models/norms.py": "def norm(): return 'norm'\n",
    "pkg/models/more.py": "starred = 5\n",
    "pkg/helper.py": "def helper(): return 'helper'\n",
    "pkg/models/net.py": """
import numpy, missing_package.sub
from missing_package import REGISTRY, Base
from mmcv.cnn import CONV_LAYERS, build_conv_layer
from mmengine.model import BaseModule
from spconv import SubMConv3d
from pkg.models import norm, helper, starred
from .. import missing_extension

@REGISTRY.register_module()
@REGISTRY.register_module
class Net(BaseModule):
    pass

@CONV_LAYERS.register_module()
class SubMConv3d(SubMConv3d):
    pass

class Other(Base):
    made: 'REGISTRY | None' = None
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "owner+name" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_files_are_imported_without_what_their_packages_import(checkout: Path) -> None:
    before, cuda = set(sys.modules), torch.Tensor.cuda
    with opened(checkout, ("owner/name",), aliases={"spconv": "spconv.pytorch"}) as repository:
        net = repository.load("pkg.models.net")
        assert isinstance(net.Net(init_cfg=1), nn.Module) and issubclass(net.Other, nn.Module)
        assert isinstance(net.build_conv_layer({"type": "SubMConv3d"}, 4, 8, 3), net.SubMConv3d)
        assert repository.voxels == 500
        assert net.norm() == "norm" and net.helper() == "helper" and net.starred == 5
        assert repr(net.missing_extension.run(1)) == "<not installed: pkg.missing_extension.run(…)>"
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] == "pkg"}
    assert type(build_conv_layer({"type": "SubMConv3d"}, 4, 8, 3)).__module__ == "spconv.pytorch.conv"
    assert torch.Tensor.cuda is cuda and sys.modules["spconv"].__name__ == "spconv"


def test_our_own_imports_get_no_stand_ins(checkout: Path) -> None:
    with opened(checkout, ("owner/name",)), pytest.raises(ModuleNotFoundError):
        __import__("missing_package")


def test_a_missing_checkout_is_a_result_and_an_error(tmp_path: Path) -> None:
    (result,) = original_results(tmp_path, ("centerpoint",))
    assert (result.failed, result.message) == ("checkout", "not there: tianweiy/CenterPoint")
    with pytest.raises(ArgumentError, match=r"git clone https://github.com/owner/name"):  # noqa: SIM117
        with opened(tmp_path, ("owner/name",)):
            pass


def test_results_are_plain_data() -> None:
    found = Result("net", (1, "conv1"), {"capture": "ok"}, dialect="libspconv").to_dict()
    assert json.loads(json.dumps(found))["output"] == "(1, 'conv1')"
