# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files are data: nothing in them runs, and foreign objects do not hide the weights."""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from scn_fx.errors import CalibrationError
from scn_fx.quant.checkpoint_files import file_sha256, read_checkpoint, state_dicts
from scn_fx.quant.unpickling import Foreign

WEIGHTS = {
    "conv.weight": torch.randn(4, 3, 3, 3, 2),
    "half": torch.randn(5).half(),
    "brain": torch.randn(3).bfloat16(),
    "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    "view": torch.arange(12.0).reshape(3, 4)[1:, ::2],
    "count": torch.tensor(3),
}


class Config(dict[str, Any]):
    """Stands for the dict classes of frameworks."""


class Buffer:
    """Stands for their other classes."""

    def __init__(self) -> None:
        self.values, self.when = [1.0], datetime.datetime(2024, 5, 1)


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.fixture(params=["zip", "legacy"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        path = tmp_path / "c.pth"
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return write


def same(found: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(WEIGHTS)
    for key, value in WEIGHTS.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value.detach())


EXTRAS = {
    "namespace": argparse.Namespace(lr=0.1, out=PurePosixPath("work")),
    "date": datetime.datetime(2024, 5, 1),
    "scalar": np.float64(0.5),
    "array": np.ones((2, 3)),
    "dtype": np.dtype("float32"),
    "config": Config(a=Config(b=[1, 2])),
    "buffer": Buffer(),
    "set": {1, 2},
    "ordered": OrderedDict(a=1),
    "partial": functools.partial(print, "x"),
    "class": Buffer,
    "device": torch.device("cuda:1"),
    "size": torch.Size([1, 2]),
    "slice": slice(1, 2),
}


@pytest.mark.parametrize("name", EXTRAS)
def test_foreign_objects_beside_the_weights(save: Callable[[Any], Path], name: str) -> None:
    content = read_checkpoint(save({"meta": {name: EXTRAS[name]}, "state_dict": WEIGHTS}))
    same(state_dicts(content)["state_dict",])


def test_weights_inside_foreign_containers(save: Callable[[Any], Path]) -> None:
    same(
        state_dicts(read_checkpoint(save(Config(model=Config(state_dict=OrderedDict(WEIGHTS))))))[
            "model", "state_dict"
        ]
    )
    same(state_dicts(read_checkpoint(save(argparse.Namespace(net=WEIGHTS))))["net",])


def test_a_module_saved_as_a_whole(save: Callable[[Any], Path]) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.BatchNorm1d(3)))
    for content, path in ((module, ()), ({"ema": module, "epoch": 3}, ("ema",))):
        found = state_dicts(read_checkpoint(save(content)))[path]
        assert found.keys() == module.state_dict().keys()
        assert all(torch.equal(found[k], v) for k, v in module.state_dict().items())


def test_tensors_of_a_gpu_come_to_the_cpu(
    save: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = save({"state_dict": WEIGHTS, "buffer": Buffer()})
    same(state_dicts(read_checkpoint(path))["state_dict",])


def evil(marker: Path) -> list[Any]:
    """Objects whose unpickling would make `marker`, or leave something changed."""
    touch, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    nested = marker.with_name("nested.pth")
    with nested.open("wb") as file:
        pickle.dump(Call(os.system, touch), file)
    return [
        Call(os.system, touch),
        Call(eval, code),
        Call(exec, code),
        Call(importlib.import_module, "this"),
        Call(functools.partial, os.system, touch),
        Call(torch.load, str(nested)),
        Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.system, touch))),
        Call(map, os.system, [touch]),
        Call(open, str(marker), "w"),
        Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (touch,), {}),
        Call(torch._utils._rebuild_parameter, Call(os.system, touch), False, OrderedDict()),
    ]


@pytest.mark.parametrize("number", range(12))
def test_nothing_of_a_file_runs(save: Callable[[Any], Path], tmp_path: Path, number: int) -> None:
    marker = tmp_path / "marker"
    content = read_checkpoint(save({"state_dict": WEIGHTS, "evil": evil(marker)[number]}))
    assert not marker.exists()
    same(state_dicts(content)["state_dict",])


def with_pickle(path: Path, program: bytes) -> Path:
    """A zip file of torch.save whose pickle is `program`."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, program if name.endswith("data.pkl") else data)
    return path


def test_a_pickle_cannot_change_the_functions_it_may_call(tmp_path: Path) -> None:
    before = dict(vars(torch._utils._rebuild_tensor_v2))
    for name in ("__code__", "__defaults__", "_build", "mark"):
        # builder, state (None, {name: 1}), BUILD: pickle's way to set attributes
        program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X" + len(name).to_bytes(4, "little")
        program += name.encode() + b"K\x01s\x86b."
        with pytest.raises(CalibrationError, match="cannot be read as weights"):
            read_checkpoint(with_pickle(tmp_path / "c.pth", program))
    assert dict(vars(torch._utils._rebuild_tensor_v2)) == before
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None,)


def test_every_opcode_that_calls_gets_a_stand_in(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    argument = b"(V" + f"touch {marker}".encode() + b"\n"
    for program in (
        b"cposix\nsystem\n" + argument + b"tR.",  # REDUCE
        argument + b"iposix\nsystem\n.",  # INST
        b"(cposix\nsystem\n" + argument[1:] + b"o.",  # OBJ
        b"\x80\x02cposix\nsystem\n" + argument + b"t\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + argument + b"tR.",  # STACK_GLOBAL
    ):
        found = read_checkpoint(with_pickle(tmp_path / "c.pth", program))
        assert isinstance(found, Foreign) and found.origin == "posix.system" and not marker.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page; the download has failed"),
        (pickle.dumps({"a": 1}), "a pickle, but not one of torch.save"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"a":{}}        ', "safetensors"),
        (b"PK\x03\x04 nothing", "no complete zip archive.*truncated or damaged"),
        (b"sys_info" + bytes(149), "tar archive of PyTorch 0.1"),
        (b"hello, I am a text", "starts with b'hello, I'"),
    ],
)
def test_files_of_other_kinds_are_called_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "c.pth").write_bytes(data)
    with pytest.raises(CalibrationError, match=f"cannot be read as weights: .*{words}") as raised:
        read_checkpoint(tmp_path / "c.pth")
    assert "weights_only" not in str(raised.value)


def test_truncated_files_and_programs_are_refused(save: Callable[[Any], Path], tmp_path: Path) -> None:
    path = save({"state_dict": WEIGHTS, "buffer": Buffer()})
    data = path.read_bytes()
    for length in (1, 20, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:length])
        with pytest.raises(CalibrationError, match="cannot be read as weights"):
            read_checkpoint(path)
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1, 1)), tmp_path / "program.pt")
    with pytest.raises(CalibrationError, match=r"TorchScript archive.*state_dict"):
        read_checkpoint(tmp_path / "program.pt")


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")
