# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation of captured sparse networks: ranges and precisions end up in the graph.

``calibrate`` measures ranges on frames, ``quantize`` fits weights as well, ``set_precision`` chooses the
arithmetic of each layer, ``save_cache`` and ``load_cache`` keep the outcome in a JSON file,
``load_pytorch_quantization`` takes ranges from a checkpoint. Names are resolved on first use, so that
``import quant`` does not import torch (seconds).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quant.auto_precision import PrecisionChoice, choose_precision
    from quant.bias_correction import BiasReport, correct_bias
    from quant.cache import load_cache, save_cache
    from quant.calibration import CalibrationResult, calibrate
    from quant.checkpoint_export import save_pytorch_quantization
    from quant.checkpoints import ImportReport, load_pytorch_quantization
    from quant.equalization import EqualizationReport, equalize
    from quant.finetuning import FinetuneReport, finetune
    from quant.layer_sensitivity import SensitivityReport, sensitivity
    from quant.precision import default_precisions, set_precision
    from quant.qat import finish_qat, prepare_qat, refresh_weight_ranges
    from quant.quantization import QuantizationResult, quantize
    from quant.reselection import reselect
    from quant.retrofitting import RetrofitReport, retrofit
    from quant.rounding import RoundingReport, round_weights

__all__ = [
    "CONSUMERS",
    "IMPROVEMENTS",
    "METHODS",
    "OUTLIERS",
    "WEIGHTS",
    "BiasReport",
    "CalibrationResult",
    "EqualizationReport",
    "FinetuneReport",
    "ImportReport",
    "PrecisionChoice",
    "QuantizationResult",
    "RetrofitReport",
    "RoundingReport",
    "SensitivityReport",
    "calibrate",
    "choose_precision",
    "correct_bias",
    "default_precisions",
    "equalize",
    "finetune",
    "finish_qat",
    "load_cache",
    "load_pytorch_quantization",
    "prepare_qat",
    "quantize",
    "refresh_weight_ranges",
    "reselect",
    "retrofit",
    "round_weights",
    "save_cache",
    "save_pytorch_quantization",
    "sensitivity",
    "set_precision",
]

METHODS = ("max", "percentile", "mse", "entropy")
"""How `calibrate` can take a range from the values it has seen."""

CONSUMERS = ("aware", "ignore")
"""Whether `calibrate` fits a range to what readers use of a value, or to all of the value."""

OUTLIERS = ("drop", "keep")
"""What `calibrate` does with voxels and frames that stand alone: leave them out, or use them."""

WEIGHTS = ("output", "max")
"""How `calibrate` takes the ranges of weights: by the error at the output, or the largest magnitude."""

IMPROVEMENTS = ("equalize", "bias", "round")
"""How `quantize` can change weights and biases, in the order in which it does."""

_HOME = {
    "BiasReport": "quant.bias_correction",
    "CalibrationResult": "quant.calibration",
    "EqualizationReport": "quant.equalization",
    "FinetuneReport": "quant.finetuning",
    "ImportReport": "quant.checkpoints",
    "PrecisionChoice": "quant.auto_precision",
    "QuantizationResult": "quant.quantization",
    "RetrofitReport": "quant.retrofitting",
    "RoundingReport": "quant.rounding",
    "SensitivityReport": "quant.layer_sensitivity",
    "calibrate": "quant.calibration",
    "choose_precision": "quant.auto_precision",
    "correct_bias": "quant.bias_correction",
    "default_precisions": "quant.precision",
    "equalize": "quant.equalization",
    "finetune": "quant.finetuning",
    "finish_qat": "quant.qat",
    "load_cache": "quant.cache",
    "load_pytorch_quantization": "quant.checkpoints",
    "prepare_qat": "quant.qat",
    "quantize": "quant.quantization",
    "refresh_weight_ranges": "quant.qat",
    "reselect": "quant.reselection",
    "retrofit": "quant.retrofitting",
    "round_weights": "quant.rounding",
    "save_cache": "quant.cache",
    "save_pytorch_quantization": "quant.checkpoint_export",
    "sensitivity": "quant.layer_sensitivity",
    "set_precision": "quant.precision",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'quant' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from scn_fx.errors import MissingPackageError

        raise MissingPackageError.of("torch", "quant", f"quant.{name}") from error


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
