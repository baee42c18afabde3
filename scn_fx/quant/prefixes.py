# SPDX-License-Identifier: Apache-2.0
"""Where a model's names are in a checkpoint: under which container, and behind which prefix.

A checkpoint names a layer by the path it had in training: "module.backbone_3d.conv1.0.weight" for the
encoder's "conv1.0.weight". A place is right if *all* names of the encoder are there; where several places
hold all of them (student and teacher, weights and their moving average), nothing here picks one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from scn_fx.errors import CalibrationError

__all__ = ["Place", "choose_place", "find_places", "without_wrappers"]

# Modules that torch.compile, FSDP and activation checkpointing put around others; no model calls its own so.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# DistributedDataParallel's. It may be a model's own name, too, and is looked through only if need be.
_DDP = "module"
_SHOWN = 8


@dataclass(frozen=True)
class Place:
    """One place in a checkpoint where names of the model were found.

    Attributes:
        container: keys that lead to the state dict, such as ("model", "state_dict"); () for the file itself.
        prefix: what precedes the model's names there, such as "backbone.".
        keys: for each name of the model that is there, the state dict's key.
    """

    container: tuple[str, ...]
    prefix: str
    keys: Mapping[str, str]

    @property
    def label(self) -> str:
        """Container and prefix in one text, as `prefix=` takes it."""
        return "".join(f"{key}." for key in self.container) + self.prefix

    @property
    def by_full_name(self) -> bool:
        """Whether the keys are the model's own names, but for wrappers around the whole model."""
        return all(part in _WRAPPERS or part == _DDP for part in self.prefix.split(".")[:-1])


def find_places(
    dicts: Mapping[tuple[str, ...], Collection[str]], wanted: Collection[str]
) -> tuple[Place, ...]:
    """Every place where at least one of the `wanted` names is found.

    `dicts` gives the keys of each state dict by its container. Names of wrappers (torch.compile's
    "_orig_mod") in the middle of a key or of a wanted name are looked through; "module" too, if no place
    holds all names otherwise. Raises CalibrationError if two keys of one place mean the same name.
    """
    places: tuple[Place, ...] = ()
    for ignored in (_WRAPPERS, _WRAPPERS | {_DDP}):
        names = {without_wrappers(name, ignored): name for name in wanted}
        places = tuple(
            place for path, keys in dicts.items() for place in _places_of(path, keys, names, ignored)
        )
        if any(len(place.keys) == len(names) for place in places):
            break
    return places


def _places_of(
    container: tuple[str, ...], keys: Collection[str], names: Mapping[str, str], ignored: Collection[str]
) -> list[Place]:
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        parts = key.split(".")
        for start in range(len(parts)):
            if parts[start] in ignored and start + 1 < len(parts):
                continue  # a wrapper in front of the name belongs to the prefix
            name = names.get(without_wrappers(".".join(parts[start:]), ignored))
            if name is None:
                continue
            prefix = "".join(f"{part}." for part in parts[:start])
            before = found.setdefault(prefix, {}).setdefault(name, key)
            if before != key:
                raise CalibrationError(
                    f"The checkpoint holds {name} twice, as {before} and as {key}. Remove one of the two "
                    "from the state dict."
                )
    return [Place(container, prefix, keys) for prefix, keys in found.items()]


def without_wrappers(name: str, ignored: Collection[str] = _WRAPPERS) -> str:
    """A dotted name without the modules that wrappers add; its last part stays."""
    parts = name.split(".")
    return ".".join([part for part in parts[:-1] if part not in ignored] + parts[-1:])


def choose_place(
    places: Collection[Place],
    complete: Callable[[Place], bool],
    *,
    prefix: str | None,
    source: str,
    option: str,
) -> Place | None:
    """The place that holds everything (`complete`), or None if there is none.

    If several do, the only one by the model's full names is taken. `prefix` keeps the places that it names,
    with or without their container. Raises CalibrationError, naming all of them, if several are left;
    `source` names the checkpoint and `option` the argument by which the user chooses.
    """
    if prefix is not None:
        asked = prefix.rstrip(".")
        places = [p for p in places if asked in (p.label.rstrip("."), p.prefix.rstrip("."))]
    full = [place for place in places if complete(place)]
    if len(full) > 1:
        own = [place for place in full if place.by_full_name]
        full = own if len(own) == 1 else full
    if len(full) > 1:
        labels = ", ".join(repr(place.label) for place in full[:_SHOWN]) + ", ..." * (len(full) > _SHOWN)
        raise CalibrationError(
            f"{source} holds these names completely under several prefixes: {labels}. Choose one with "
            f"{option}."
        )
    return full[0] if full else None
