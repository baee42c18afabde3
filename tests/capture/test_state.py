# SPDX-License-Identifier: Apache-2.0
"""Whatever a forward keeps, and wherever: after a capture the model is what it was."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import spconv.pytorch as spconv
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from scn_fx.capture import capture
from scn_fx.capture.state import State
from scn_fx.errors import CaptureError
from tests.capture.frames import assert_same_as_spconv, frame, sparse

HELD: dict[str, Any] = {}
LATEST: Any = None


class Helper:
    def __init__(self) -> None:
        self.count, self.last = 0, None


class Slots:
    __slots__ = ("last",)


class Recorder:
    """What a hook may be: an object that a function or its variables lead to."""

    __slots__ = ("seen",)


class Slotted(nn.Module):
    __slots__ = ("kept",)


class Keeper(nn.Module):
    """Runs a convolution, and `keep` on what came out."""

    shared: dict[str, Any] = {}  # noqa: RUF012 - the kind of thing that models do
    latest: Any = None

    def __init__(self, keep: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.conv = spconv.SubMConv3d(4, 4, 3, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.none, self.list, self.dict = None, [1], {"a": 1}
        self.deque, self.set, self.ordered = deque([1], maxlen=3), {1}, OrderedDict(a=[1])
        self.namespace, self.helper = SimpleNamespace(x=None, inner=[None]), Helper()
        self.tensor = torch.ones(3)
        self.register_buffer("buffer", torch.zeros(2))
        self.register_buffer("absent", None)
        self._keep = keep

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        self._keep(self, y)
        return y.replace_feature(self.norm(y.features))


def _globally(m: Any, y: Any) -> None:
    global LATEST
    LATEST = y.features


KEEPS: dict[str, Callable[[Any, Any], Any]] = {
    "new attribute": lambda m, y: setattr(m, "new", y.features),
    "sparse tensor": lambda m, y: setattr(m, "new", y),
    "dict in a new attribute": lambda m, y: setattr(m, "new", {"a": [y.features]}),
    "old attribute": lambda m, y: setattr(m, "none", y.features),
    "attribute that is a tensor": lambda m, y: setattr(m, "tensor", y.features),
    "buffer": lambda m, y: setattr(m, "buffer", y.features),
    "buffer that was None": lambda m, y: setattr(m, "absent", y.features),
    "new buffer": lambda m, y: m.register_buffer("more", y.features),
    "attribute of a child": lambda m, y: setattr(m.conv, "last_input", y),
    "list": lambda m, y: m.list.append(y.features),
    "list item": lambda m, y: m.list.__setitem__(0, y.features),
    "dict": lambda m, y: m.dict.update(b=y.features, a=y),
    "deque": lambda m, y: m.deque.append(y.features),
    "set": lambda m, y: m.set.add(y.features),
    "nested": lambda m, y: m.ordered["a"].append({"deep": (y.features,)}),
    "namespace": lambda m, y: setattr(m.namespace, "x", y.features),
    "list in a namespace": lambda m, y: m.namespace.inner.append(y.features),
    "helper": lambda m, y: setattr(m.helper, "last", y.features),
    "class attribute": lambda m, y: setattr(Keeper, "latest", y.features),
    "new class attribute": lambda m, y: setattr(type(m), "brand_new", y.features),
    "dict of the class": lambda m, y: m.shared.update(a=y.features),
    "global": _globally,
    "dict of the Python module": lambda m, y: HELD.update(a=[y.features]),
    "removed": lambda m, y: delattr(m, "none"),
    "cleared": lambda m, y: m.dict.clear(),
    "replaced": lambda m, y: setattr(m, "list", [y.features]),
    "hook": lambda m, y: m.conv.register_forward_hook(lambda *a: None),
    "added module": lambda m, y: m.add_module("late", nn.Identity()),
}


def snapshot(model: nn.Module) -> Any:
    """Everything a forward of this file can change, as bytes."""
    return pickle.dumps(
        (
            {
                n: {k: v for k, v in m.__dict__.items() if k not in ("_keep", "_modules")}
                for n, m in model.named_modules()
            },
            [name for name, _ in model.named_modules()],
            Keeper.shared,
            Keeper.latest,
            hasattr(Keeper, "brand_new"),
            HELD,
            LATEST,
        )
    )


def fakes(value: Any, seen: set[int]) -> int:
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, FakeTensor):
        return 1
    if isinstance(value, dict):
        return sum(fakes(v, seen) for v in value.values())
    if isinstance(value, list | tuple | set | deque):
        return sum(fakes(v, seen) for v in value)
    return fakes(vars(value), seen) if hasattr(value, "__dict__") and not isinstance(value, type) else 0


@pytest.mark.parametrize("case", KEEPS)
def test_the_model_is_what_it_was(case: str) -> None:
    model, (features, indices) = Keeper(KEEPS[case]).eval(), frame()
    before = snapshot(model)
    graph = capture(model, (sparse(features, indices),))
    assert snapshot(model) == before
    assert fakes(model, set()) == fakes(vars(Keeper).copy(), set()) == fakes([HELD, LATEST], set()) == 0
    copied = copy.deepcopy(model.conv)
    torch.save(copied.state_dict(), io.BytesIO())
    torch.save(model.state_dict(), io.BytesIO())
    assert_same_as_spconv(graph, _plain(model), features, indices)


def _plain(model: Any) -> Any:
    """The same weights without the keeping."""
    plain = Keeper(lambda m, y: None).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    return plain


@pytest.mark.parametrize(
    "case", ["new attribute", "list", "buffer", "class attribute", "dict of the Python module"]
)
def test_a_failed_capture_leaves_nothing_behind_either(case: str) -> None:
    def keep(m: Any, y: Any) -> None:
        KEEPS[case](m, y)
        raise ValueError("not today")

    model = Keeper(keep).eval()
    before = snapshot(model)
    with pytest.raises(CaptureError, match="not today"):
        capture(model, (sparse(*frame()),))
    assert snapshot(model) == before
    assert fakes(model, set()) == fakes([HELD, LATEST], set()) == 0


@pytest.mark.parametrize("case", ["old attribute", "attribute that is a tensor", "buffer", "list"])
def test_a_model_that_has_run_before_is_captured(case: str) -> None:
    model, (features, indices) = Keeper(KEEPS[case]).eval(), frame()
    with torch.no_grad():
        model(sparse(features, indices))
    kept = model.none, model.tensor, model.buffer, list(model.list)
    capture(model, (sparse(features, indices),))
    after = model.none, model.tensor, model.buffer, list(model.list)
    assert all(a is b for a, b in zip(kept[:3], after[:3], strict=True))
    assert all(a is b for a, b in zip(kept[3], after[3], strict=True))


@pytest.mark.parametrize("name", ["buffer", "tensor"])
@pytest.mark.parametrize("how", ["assigned", "written"])
def test_an_output_that_depends_on_what_the_forward_remembers_is_refused(name: str, how: str) -> None:
    class Recurrent(Keeper):
        def __init__(self) -> None:
            super().__init__(lambda m, y: None)
            self.register_buffer("buffer", torch.ones(4, 3, 3, 3, 4))
            self.tensor = torch.ones(4, 3, 3, 3, 4)

        def forward(self, x: Any) -> Any:
            state = getattr(self, name)
            if how == "assigned":
                setattr(self, name, state * 0.5)
            else:
                state.mul_(0.5)
            return self.conv._conv_forward(False, x, self.conv.weight * getattr(self, name), None)

    with pytest.raises(CaptureError, match="remembers nothing"):
        capture(Recurrent().eval(), (sparse(*frame()),))


def test_batch_norm_counters_are_no_state_of_the_output() -> None:
    model, (features, indices) = Keeper(lambda m, y: m.norm.num_batches_tracked.add_(1)).eval(), frame()
    count = int(model.norm.num_batches_tracked)
    assert_same_as_spconv(capture(model, (sparse(features, indices),)), _plain(model), features, indices)
    assert int(model.norm.num_batches_tracked) == count


def test_a_data_set_that_the_model_holds_costs_no_time() -> None:
    class DataSet:
        def __init__(self) -> None:
            self.infos = [{"path": str(n), "boxes": [n]} for n in range(20_000)]
            self.by_class = {f"class {n}": [{"path": str(m)} for m in range(500)] for n in range(200)}

    model = Keeper(lambda m, y: m.dict.update(b=y.features)).eval()
    model.data = DataSet()
    state = State(model)
    assert len(state._shared) < 60_000
    capture(model, (sparse(*frame()),))
    assert fakes(model, set()) == 0
    assert len(model.data.infos) == 20_000


def test_what_hooks_keep_is_put_back() -> None:
    model, (features, indices) = Keeper(lambda m, y: None).eval(), frame()
    levels, latest, recorder = {}, None, Recorder()

    def store(module: Any, args: Any, result: Any, seen: list[Any] = []) -> None:  # noqa: B006 - the kind of thing
        nonlocal latest
        levels["conv"], latest, recorder.seen = result, result.features, result
        seen.append(result.features)

    model.conv.register_forward_hook(store)
    capture(model, (sparse(features, indices),))
    assert (levels, latest, store.__defaults__) == ({}, None, ([],))
    assert not hasattr(recorder, "seen")


def test_slots_of_a_module_are_put_back() -> None:
    class Model(Slotted):
        def __init__(self) -> None:
            super().__init__()
            self.conv = spconv.SubMConv3d(4, 4, 3, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.conv(x)
            object.__setattr__(self, "kept", x.features)
            return x

    model = Model().eval()
    capture(model, (sparse(*frame()),))
    assert not hasattr(model, "kept")


def test_containers_that_modules_share_stay_shared() -> None:
    model = Keeper(lambda m, y: None).eval()
    model.conv.shared_list = model.list  # type: ignore[assignment]
    before = {name: value for name, value in vars(model.conv).items() if isinstance(value, list | dict)}
    capture(model, (sparse(*frame()),))
    assert model.conv.shared_list is model.list
    assert all(vars(model.conv)[name] is value for name, value in before.items())


@pytest.mark.parametrize(
    ("late", "text"),
    [
        (lambda: nn.LazyLinear(3), "Run the model on a frame once"),
        (lambda: nn.Linear(3, 3, device="meta"), "assign=True"),
    ],
)
def test_parameters_without_shape_or_values_are_refused(late: Callable[[], nn.Module], text: str) -> None:
    model = Keeper(lambda m, y: None)
    model.late = late()
    with pytest.raises(CaptureError, match=r"'late\.weight' has no .*" + text):
        capture(model.eval(), (sparse(*frame()),))
