# SPDX-License-Identifier: Apache-2.0
"""Evaluates choices of precisions on a few frames, in the engine's own arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule

from scn_fx.errors import CalibrationError
from scn_fx.quant.layer_sensitivity import Metric, measured, named_frame, prepared
from scn_fx.quant.mixed import Form, MixedRunner, Noise, Values, engine_forms

__all__ = ["Evaluator"]

_KEPT_BYTES = 2 << 30
"""Of intermediate values; frames beyond it run whole each time."""


@dataclass
class _Frame:
    number: int
    tensors: list[torch.Tensor]
    reference: Any = field(repr=False)
    values: Values | None = field(default=None, repr=False)
    """In the forms that were adopted last."""


class Evaluator:
    """The error of a graph's outputs for choices of float16 layers among those that are int8 otherwise.

    Attributes:
        evaluations: choices evaluated so far.
        alone: for each of the layers, error over signal (energies) with it alone in int8, others float32.
        base_metric: the metric of the float32 network; None without a metric.
    """

    def __init__(
        self,
        graph: GraphModule,
        frames: Iterable[Sequence[Any]],
        base: Mapping[str, str],
        layers: Sequence[str],
        metric: Metric | None,
        advance: Callable[[], None],
    ):
        self._graph, self._base, self._metric, self._advance = graph, base, metric, advance
        self._runner = MixedRunner(graph)
        self._frames: list[_Frame] = []
        self.evaluations = 0
        noises = {name: Noise() for name in layers}
        int8: Form = ("int8", "int8")
        for number, tensors in prepared(graph, frames):
            with named_frame(number):
                reference = self._runner.values(tensors, {})
                for name, noise in noises.items():
                    found = self._runner.values(tensors, {name: int8}, reference)
                    noise.add(reference.result, found.result)
                    advance()
            # Of the values only those that no precision changes (kernel maps) serve later.
            self._frames.append(_Frame(number, tensors, reference.result, reference))
            self._forget_beyond()
        if not self._frames:
            raise CalibrationError(
                "There are no frames. Give at least one; a dozen from different places serve."
            )
        self.alone = {name: noise.ratio for name, noise in noises.items()}
        self.base_metric = None if metric is None else measured(metric, self._runner, {})

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self._frames)

    @property
    def first(self) -> list[torch.Tensor]:
        """The tensors of the first frame."""
        return self._frames[0].tensors

    def precisions(self, fp16: Iterable[str]) -> dict[str, str]:
        """The precision of every layer, with these in float16."""
        return {**self._base, **dict.fromkeys(fp16, "fp16")}

    def noise(self, fp16: Iterable[str]) -> float:
        """Error over signal (energies) at the outputs with these layers in float16, against float32.

        Raises OverflowedError if a layer does not fit in float16.
        """
        forms = engine_forms(self._graph, self.precisions(fp16))
        total = Noise()
        for frame in self._frames:
            with named_frame(frame.number):
                total.add(frame.reference, self._runner.values(frame.tensors, forms, frame.values).result)
        self.evaluations += 1
        self._advance()
        return total.ratio

    def metric_loss(self, fp16: Iterable[str]) -> float:
        """The float32 network's metric less that with these layers in float16."""
        assert self._metric is not None and self.base_metric is not None
        forms = engine_forms(self._graph, self.precisions(fp16))
        return self.base_metric - measured(self._metric, self._runner, forms)

    def adopt(self, fp16: Iterable[str]) -> None:
        """Later choices will differ little from this one: keep its values."""
        forms = engine_forms(self._graph, self.precisions(fp16))
        for frame in self._frames:
            if frame.values is not None:
                frame.values = self._runner.values(frame.tensors, forms, frame.values)

    def _forget_beyond(self) -> None:
        if sum(frame.values.size for frame in self._frames if frame.values) > _KEPT_BYTES:
            self._frames[-1].values = None
