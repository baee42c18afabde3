# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation of captured sparse networks: ranges and precisions end up in the graph.

``calibrate`` measures ranges on frames, ``quantize`` fits weights as well, ``set_precision`` chooses the
arithmetic of each layer, ``save_cache`` and ``load_cache`` keep the outcome in a JSON file,
``load_pytorch_quantization`` takes ranges from a checkpoint. Names are resolved on first use, so that
``from scn_fx import quant`` does not import torch (seconds). ``import quant`` is the same module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scn_fx.quant.auto_precision import PrecisionChoice, choose_precision
    from scn_fx.quant.bias_correction import BiasReport, correct_bias
    from scn_fx.quant.cache import load_cache, save_cache
    from scn_fx.quant.calibration import CalibrationResult, calibrate
    from scn_fx.quant.checkpoint_export import save_pytorch_quantization
    from scn_fx.quant.checkpoints import ImportReport, load_pytorch_quantization
    from scn_fx.quant.equalization import EqualizationReport, equalize
    from scn_fx.quant.finetuning import FinetuneReport, finetune
    from scn_fx.quant.layer_sensitivity import SensitivityReport, sensitivity
    from scn_fx.quant.precision import default_precisions, set_precision
    from scn_fx.quant.qat import finish_qat, prepare_qat, refresh_weight_ranges
    from scn_fx.quant.quantization import QuantizationResult, quantize
    from scn_fx.quant.reselection import reselect
    from scn_fx.quant.retrofitting import RetrofitReport, retrofit
    from scn_fx.quant.rounding import RoundingReport, round_weights

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
    "BiasReport": "scn_fx.quant.bias_correction",
    "CalibrationResult": "scn_fx.quant.calibration",
    "EqualizationReport": "scn_fx.quant.equalization",
    "FinetuneReport": "scn_fx.quant.finetuning",
    "ImportReport": "scn_fx.quant.checkpoints",
    "PrecisionChoice": "scn_fx.quant.auto_precision",
    "QuantizationResult": "scn_fx.quant.quantization",
    "RetrofitReport": "scn_fx.quant.retrofitting",
    "RoundingReport": "scn_fx.quant.rounding",
    "SensitivityReport": "scn_fx.quant.layer_sensitivity",
    "calibrate": "scn_fx.quant.calibration",
    "choose_precision": "scn_fx.quant.auto_precision",
    "correct_bias": "scn_fx.quant.bias_correction",
    "default_precisions": "scn_fx.quant.precision",
    "equalize": "scn_fx.quant.equalization",
    "finetune": "scn_fx.quant.finetuning",
    "finish_qat": "scn_fx.quant.qat",
    "load_cache": "scn_fx.quant.cache",
    "load_pytorch_quantization": "scn_fx.quant.checkpoints",
    "prepare_qat": "scn_fx.quant.qat",
    "quantize": "scn_fx.quant.quantization",
    "refresh_weight_ranges": "scn_fx.quant.qat",
    "reselect": "scn_fx.quant.reselection",
    "retrofit": "scn_fx.quant.retrofitting",
    "round_weights": "scn_fx.quant.rounding",
    "save_cache": "scn_fx.quant.cache",
    "save_pytorch_quantization": "scn_fx.quant.checkpoint_export",
    "sensitivity": "scn_fx.quant.layer_sensitivity",
    "set_precision": "scn_fx.quant.precision",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'scn_fx.quant' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from scn_fx.errors import MissingPackageError

        raise MissingPackageError.of("torch", "quant", f"quant.{name}") from error


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
