# SPDX-License-Identifier: Apache-2.0
"""Where a model's names are in a checkpoint: complete matches only, and never the first of several."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scn_fx.errors import CalibrationError
from scn_fx.quant.prefixes import Place, choose_place, find_places

NAMES = ("conv.weight", "conv.bias", "block.0.conv.weight")


def choose(
    dicts: dict[tuple[str, ...], Collection[str]], names: Collection[str] = NAMES, prefix: str | None = None
) -> Place | None:
    return choose_place(
        find_places(dicts, names),
        lambda place: len(place.keys) == len(names),
        prefix=prefix,
        source="file",
        option="prefix=...",
    )


def under(prefix: str) -> list[str]:
    return [prefix + name for name in NAMES]


@pytest.mark.parametrize(
    "prefix", ["", "backbone.", "module.", "_orig_mod.", "model.module.encoders.lidar.", "module._orig_mod."]
)
def test_a_prefix_is_found(prefix: str) -> None:
    place = choose({("model", "state_dict"): [*under(prefix), "head.weight", "other.conv.weight"]})
    assert place is not None and place.prefix == prefix and place.label == f"model.state_dict.{prefix}"
    assert place.keys == dict(zip(NAMES, under(prefix), strict=True))


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"]
)
def test_wrappers_in_the_middle_are_looked_through(wrapper: str) -> None:
    keys = ["net.conv.weight", "net.conv.bias", f"net.block.{wrapper}.0.conv.weight"]
    place = choose({(): keys})
    assert place is not None and place.prefix == "net." and list(place.keys.values()) == keys
    wrapped = [f"block.{wrapper}.0.conv.weight", "conv.weight", "conv.bias"]  # and in the model's own names
    found = choose({(): under("net.")}, wrapped)
    assert found is not None and found.keys[wrapped[0]] == "net.block.0.conv.weight"


def test_the_full_name_decides_and_otherwise_nothing_does() -> None:
    exact = choose({(): [*under("ema."), *under("")]})
    assert exact is not None and exact.prefix == ""
    behind = choose({(): [*under("teacher."), *under("module.")]})
    assert behind is not None and behind.prefix == "module."
    for keys in ([*under("student."), *under("teacher.")], [*under("backbone."), *under("encoders.lidar.")]):
        with pytest.raises(CalibrationError) as raised:
            choose({("state_dict",): keys})
        for key in (keys[0], keys[3]):
            assert repr("state_dict." + key.removesuffix(NAMES[0])) in str(raised.value)
    with pytest.raises(CalibrationError, match=r"'model\.', 'ema\.'"):
        choose({("model",): under(""), ("ema",): under("")})


def test_a_part_is_no_place_and_does_not_disturb() -> None:
    place = choose({(): [*under("student.")[:2], *under("teacher.")]})
    assert place is not None and place.prefix == "teacher."
    assert choose({(): under("student.")[1:]}) is None


@pytest.mark.parametrize("asked", ["ema.net.", "ema.net"])
def test_a_place_can_be_asked_for(asked: str) -> None:
    place = choose({("model",): under("net."), ("ema",): under("net.")}, prefix=asked)
    assert place is not None and place.container == ("ema",)
    with pytest.raises(CalibrationError, match=r"'model\.net\.', 'ema\.net\.'"):
        choose({("model",): under("net."), ("ema",): under("net.")}, prefix="net.")
    assert choose({("model",): under("net.")}, prefix="nothing.") is None


def test_one_name_under_two_keys_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"holds net\.conv\.weight twice, as net"):
        find_places(
            {(): ["net.conv.weight", "net.conv._orig_mod.weight"]}, ["net.conv.weight", "conv.weight"]
        )


part = st.sampled_from(["a", "b", "conv", "0", "1", "net", "weight"])
dotted = st.lists(part, min_size=1, max_size=3).map(".".join)


@given(st.sets(dotted, min_size=1, max_size=5), st.lists(part, max_size=3), st.sets(dotted, max_size=5))
def test_a_hidden_copy_is_found_whatever_surrounds_it(
    names: set[str], prefix_parts: list[str], strangers: set[str]
) -> None:
    prefix = "".join(f"{each}." for each in prefix_parts)
    keys = sorted({prefix + name for name in names} | strangers)
    complete = {
        start
        for key in keys
        for start in ["".join(f"{p}." for p in key.split(".")[:cut]) for cut in range(len(key.split(".")))]
        if all(start + name in keys for name in names)
    }
    assume(prefix in complete)
    if len(complete) == 1 or "" in complete:
        place = choose({(): keys}, names)
        assert place is not None and place.prefix == ("" if "" in complete else prefix)
        assert place.keys == {name: place.prefix + name for name in names}
    else:
        with pytest.raises(CalibrationError, match="several prefixes"):
            choose({(): keys}, names)
