# SPDX-License-Identifier: Apache-2.0
"""Errors of scn-fx: each message says what was expected, what came and what to do about it."""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "BoundError",
    "CalibrationError",
    "CalibrationWarning",
    "CaptureError",
    "CaptureWarning",
    "CompareError",
    "ExportError",
    "GridError",
    "LidarError",
    "MemoryLimitError",
    "MissingPackageError",
    "NonFiniteError",
    "OnnxError",
    "OverflowedError",
    "PlanError",
    "ScnError",
    "SiteError",
    "WriteError",
]


class ScnError(Exception):
    """Base of every error that scn-fx raises on purpose."""


class CaptureError(ScnError, TypeError):
    """The model contains something that cannot be captured; names its module path and class.

    Attributes:
        end: the `output=` of the last module before it, as code; None where that is not known.
    """

    end: str | None = None


class CaptureWarning(UserWarning):
    """A captured graph is right, but perhaps not what was meant."""


class CalibrationError(ScnError, ValueError):
    """Ranges are missing, zero, not finite, or belong to another graph."""


class CalibrationWarning(UserWarning):
    """Ranges can be taken, but probably not the best ones; says why and what to do about it."""


class ExportError(ScnError, ValueError):
    """The graph cannot be written in the requested ONNX dialect."""


class OnnxError(ScnError, ValueError):
    """The file is not an ONNX model that the engine can run (truncated, empty, foreign operators, …)."""


class PlanError(OnnxError):
    """A plan is damaged, or was made for another version of the library or kind of processor."""


class SiteError(ScnError, ValueError):
    """Features and indices do not describe a set of sites (dtype, shape, range, duplicates)."""


class ArgumentError(ScnError, ValueError):
    """A call is wrong in itself: an impossible thread count, range or option."""


class MemoryLimitError(ArgumentError, MemoryError):
    """A file or a frame needs more memory than the engine may take, see ``memory_limit``."""


class BoundError(ScnError, ValueError):
    """A layer has more output sites than its `output_bound`."""


class NonFiniteError(ScnError, ValueError):
    """Features hold NaN or infinite values."""


class OverflowedError(ScnError, ArithmeticError):
    """A layer's result does not fit in float16."""


class CompareError(ScnError, AssertionError):
    """Two executions of one network differ by more than the limits."""


class LidarError(ScnError, ValueError):
    """A LiDAR file or voxel grid is not what its format says."""


class GridError(ScnError, ValueError):
    """A frame was made for another voxel grid than the network's, or nothing says which grid that is."""


class WriteError(ScnError, OSError):
    """A file cannot be written; whatever was there before is unchanged. `errno` is the system's number."""


class MissingPackageError(ScnError, ImportError):
    """An optional package is missing; the message names the extra that installs it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingPackageError:
        """The error for `package`, which `purpose` needs and the extra `extra` of scn-fx installs."""
        return cls(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'scn-fx[{extra}]'"
        )
