# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: read safely, and searched for the state dicts they hold."""

from __future__ import annotations

import hashlib
import tarfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from scn_fx.errors import CalibrationError
from scn_fx.files.archives import open_archive
from scn_fx.files.reading import FileKind, SourceFile, open_file
from scn_fx.quant.unpickling import Foreign, load_inert

__all__ = ["file_sha256", "read_checkpoint", "state_dicts"]

_CHECKPOINT = FileKind(CalibrationError, 16 << 30, "a checkpoint")

# Checkpoints nest once or twice: {"model": {"state_dict": ...}}; deeper lie optimisers and configurations.
_DEPTH = 4
_MODULE_DEPTH = 100

_FIRST_BYTES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
    (b"<!DOCTYPE", "a web page; the download has failed"),
    (b"<html", "a web page; the download has failed"),
    (b"sys_info", "a tar archive of PyTorch 0.1; load it with an old PyTorch and save it anew"),
    (b"PK\x03\x04", "a zip archive, but not of torch.save, or a damaged one"),
    (b"\x80", "a pickle, but not one of torch.save, or a damaged one"),
)


def read_checkpoint(path: str | Path) -> Any:
    """The content of a PyTorch checkpoint, tensors on the CPU; no code of the file runs.

    Objects of classes other than tensors and containers come as `quant.unpickling.Foreign`. The CRCs of zip
    archives (torch.save since 1.6) are checked, which torch does not do; the older format has none.

    Raises CalibrationError if there is no regular file, it is larger than 16 GiB, none of torch.save, or
    damaged.
    """
    with open_file(path, _CHECKPOINT) as source:
        start = source.read(0, min(source.size, 64))
        if start.startswith(b"PK\x03\x04"):
            _check_archive(source)
        source.stream.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch's own, on storages and pickles; nothing the user could change
            try:
                return torch.load(source.stream, map_location="cpu", weights_only=True)
            except Exception:  # many kinds; whatever it was, the reader below decides
                try:
                    source.stream.seek(0)
                    if tarfile.is_tarfile(source.stream):  # torch would unpack it into a folder
                        raise ValueError("the tar format of PyTorch before 0.2")
                    source.stream.seek(0)
                    return load_inert(source.stream)
                except Exception as error:
                    raise CalibrationError(
                        f"The checkpoint {path} cannot be read as weights: {_what_it_is(start)}. Expected a "
                        "file that torch.save has written, complete."
                    ) from error


def _check_archive(source: SourceFile) -> None:
    """The zip archive of a checkpoint is complete, undamaged and no program."""
    try:
        with open_archive(source) as archive:
            if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.names):
                raise source.error(
                    "it is a TorchScript archive, which is a program. Save the weights of the model alone: "
                    "torch.save(model.state_dict(), path)."
                )
            archive.require_plain()
            if not archive.without_crc:
                archive.check_contents()
    except CalibrationError as error:
        text = str(error).removeprefix(f"{source.path}: ")
        raise CalibrationError(f"The checkpoint {source.path} cannot be read as weights: {text}") from error


def _what_it_is(start: bytes) -> str:
    if not start:
        return "it is empty"
    for first, text in _FIRST_BYTES:
        if start.startswith(first):
            return f"it is {text}"
    if start[8:9] == b"{":  # eight bytes of length, then JSON
        return "it looks like a safetensors file; convert it with safetensors.torch.load_file and torch.save"
    return f"it starts with {start[:8]!r}"


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open_file(path, _CHECKPOINT) as source:
        while piece := source.stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def state_dicts(
    content: Any, kinds: tuple[type, ...] = (torch.Tensor,)
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Every state dict (name -> value of `kinds`) in a checkpoint's content, by the keys that lead to it.

    The content itself has the empty path (); `{"model": {"state_dict": ...}}` gives ("model", "state_dict").
    A module that was saved as a whole counts as its state dict; entries of lists are named by position.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    seen: set[int] = set()

    def search(value: Any, path: tuple[str, ...]) -> None:
        if id(value) in seen or len(path) > _DEPTH:
            return
        seen.add(id(value))
        if isinstance(value, torch.nn.Module):
            value = value.state_dict()
        if isinstance(value, list | tuple):  # (model, optimiser), [stage 1, stage 2]: named by position
            followed = (Mapping, list, tuple, torch.nn.Module)
            value = {str(position): x for position, x in enumerate(value) if isinstance(x, followed)}
        attributes = value.state if isinstance(value, Foreign) else None
        if isinstance(attributes, Mapping) and isinstance(attributes.get("_parameters"), Mapping):
            found[path] = dict(_saved_module(attributes))
            return
        for mapping in (value, attributes):
            if not isinstance(mapping, Mapping):
                continue
            tensors = {k: v for k, v in mapping.items() if isinstance(k, str) and isinstance(v, kinds)}
            if tensors:
                found[path] = {**found.get(path, {}), **tensors}
            for key, inner in mapping.items():
                if isinstance(key, str) and isinstance(inner, Mapping | list | tuple | torch.nn.Module):
                    search(inner, (*path, key))

    search(content, ())
    return found


def _saved_module(
    attributes: Mapping[str, Any], prefix: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a pickled torch.nn.Module, from its attributes; a module in itself counts once."""
    for kind in ("_parameters", "_buffers"):
        entries = attributes.get(kind)
        for name, value in entries.items() if isinstance(entries, Mapping) else ():
            if isinstance(value, torch.Tensor):
                yield prefix + str(name), value
    children = attributes.get("_modules")
    if len(above) >= _MODULE_DEPTH:
        raise CalibrationError(
            f"The checkpoint holds modules in more than {_MODULE_DEPTH} levels. It is damaged."
        )
    for name, child in children.items() if isinstance(children, Mapping) else ():
        if isinstance(child, Foreign) and isinstance(child.state, Mapping) and id(child) not in above:
            yield from _saved_module(child.state, f"{prefix}{name}.", (*above, id(child)))
