# SPDX-License-Identifier: Apache-2.0
"""The search for float16 layers: greedy by saved error per millisecond, every choice evaluated as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from scn_fx.errors import CalibrationError, OverflowedError
from scn_fx.quant.budget import Budget
from scn_fx.quant.evaluation import Evaluator
from scn_fx.quant.layer_times import LayerTimes
from scn_fx.quant.mixed import decibels

__all__ = ["Search", "spare_time", "spend_time"]

_TRIED = 3
"""Layers that each step evaluates, the most promising first."""

_LEAST_SHARE = 1e-3
"""Of a frame's time: what a layer is taken to add at least (an Add, or one that is faster in float16)."""


class Search:
    """What both searches share.

    Attributes:
        overflowing: layers whose values float16 cannot hold; they stay int8.
        all_fp16_db: SQNR in dB with every free layer in float16; None if it was not asked for.
    """

    def __init__(self, evaluator: Evaluator, times: LayerTimes, budget: Budget, most: int):
        self.evaluator, self.times, self.budget = evaluator, times, budget
        self.overflowing: list[str] = []
        self.all_fp16_db: float | None = None
        self._most = most
        self._noises: dict[frozenset[str], float] = {}
        self._losses: dict[frozenset[str], float] = {}
        # What a layer is hoped to save: at first what it costs alone, then what it saved when last tried.
        self._gains = dict(evaluator.alone)

    def noise(self, fp16: Iterable[str]) -> float:
        """Error over signal of a choice."""
        key = frozenset(fp16)
        if key not in self._noises:
            self._noises[key] = self.evaluator.noise(key)
        return self._noises[key]

    def reached(self, fp16: Iterable[str]) -> float:
        """What a choice reaches, in the unit of the budget."""
        key = frozenset(fp16)
        if self.budget.kind == "sqnr":
            return decibels(self.noise(key))
        if self.budget.kind == "time":
            return self.times.frame(key) / self.times.total
        if key not in self._losses:
            self._losses[key] = self.evaluator.metric_loss(key)
        return self._losses[key]

    def holds(self, fp16: Iterable[str]) -> bool:
        """Whether a choice keeps to the budget."""
        return self.budget.holds(self.reached(fp16))

    def exhausted(self, reserve: int = 0) -> bool:
        """Whether the evaluations are used up, but for some to finish with."""
        return self.evaluator.evaluations + reserve >= self._most

    def cost(self, name: str) -> float:
        """Milliseconds that a layer is taken to add in float16."""
        return max(self.times.added(name), _LEAST_SHARE * self.times.total, 1e-9)

    def ranked(self, names: Collection[str]) -> list[str]:
        """Layers by hoped gain per millisecond, the best first."""
        return sorted(names, key=lambda name: self._gains[name] / self.cost(name), reverse=True)

    def step(self, fp16: list[str], left: list[str]) -> str | None:
        """The layer of `left` to take next: the best of those tried; None if float16 holds none of them.

        Its gain may be nothing, for errors of several layers can hide each other's.
        """
        now = self.noise(fp16)
        best: tuple[float, str] | None = None
        tried = 0
        for name in self.ranked(left):
            if tried == _TRIED:
                break
            try:
                gain = now - self.noise([*fp16, name])
            except OverflowedError:
                self.overflowing.append(name)
                left.remove(name)
                continue
            tried += 1
            self._gains[name] = max(gain, 0.0)
            if best is None or gain / self.cost(name) > best[0]:
                best = gain / self.cost(name), name
        return None if best is None else best[1]

    def gain(self, name: str) -> float:
        """What a layer saved when it was last tried."""
        return self._gains[name]


def spare_time(search: Search) -> list[str]:
    """Layers in float16 so that an accuracy budget holds, at little time.

    Raises CalibrationError, saying what was reached, if it does not hold with all of them.
    """
    fp16: list[str] = []
    left = list(search.evaluator.alone)
    if search.holds(fp16):
        return fp16
    left = _possible(search, left)
    reserve = len(left).bit_length() + 1
    while not search.holds(fp16):
        if search.exhausted(reserve + _TRIED):
            return _halved(search, fp16, search.ranked(left))
        name = search.step(fp16, left)
        if name is None:
            raise _unreachable(search, fp16)
        fp16.append(name)
        left.remove(name)
        search.evaluator.adopt(fp16)
    return _without_idle(search, fp16)


def spend_time(search: Search) -> list[str]:
    """Layers in float16, in the order in which they were taken, so that the error is small and time kept."""
    fp16: list[str] = []
    left = list(search.evaluator.alone)
    while not search.exhausted(_TRIED):
        left = [name for name in left if search.holds([*fp16, name])]
        name = search.step(fp16, left) if left else None
        if name is None:
            break
        left.remove(name)
        if search.gain(name) > 0:
            fp16.append(name)
            search.evaluator.adopt(fp16)
    return fp16


def _possible(search: Search, every: list[str]) -> list[str]:
    """The layers that can be float16. CalibrationError if the budget does not hold with all of them."""
    try:
        search.noise(every)
    except OverflowedError:
        search.overflowing += [name for name in every if _overflows(search, name)]
        every = [name for name in every if name not in search.overflowing]
    search.all_fp16_db = decibels(search.noise(every))
    if not search.holds(every):
        raise _unreachable(search, every)
    return every


def _overflows(search: Search, name: str) -> bool:
    try:
        search.noise([name])
    except OverflowedError:
        return True
    return False


def _unreachable(search: Search, fp16: Collection[str]) -> CalibrationError:
    name, unit = ("SQNR", " dB") if search.budget.kind == "sqnr" else ("a metric loss of", "")
    best, int8 = (f"{search.reached(choice):.5g}{unit}" for choice in (fp16, ()))
    stay = (
        f" ({', '.join(search.overflowing)} cannot be float16: their values do not fit)"
        if search.overflowing
        else ""
    )
    return CalibrationError(
        f"The budget {search.budget} cannot be met: with all {len(fp16)} free layers in float16 the network "
        f"reaches {name} {best}, with all of them in int8 {int8}{stay}. Ask for less, or free the layers "
        "whose precision is given."
    )


def _halved(search: Search, fp16: list[str], ranked: list[str]) -> list[str]:
    """The shortest start of `ranked` that makes the budget hold, by halving; all of it is known to."""
    low, high = 0, len(ranked)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if search.holds([*fp16, *ranked[:middle]]) else (middle, high)
    return [*fp16, *ranked[:high]]


def _without_idle(search: Search, fp16: list[str]) -> list[str]:
    """Without the layers that the later ones have made needless, the most expensive first."""
    for name in sorted(fp16[:-1], key=search.cost, reverse=True):
        if search.exhausted():
            break
        fewer = [other for other in fp16 if other != name]
        if search.holds(fewer):
            fp16 = fewer
    return fp16
