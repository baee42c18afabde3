# SPDX-License-Identifier: Apache-2.0
"""What every test shares: voxel frames, hypothesis settings, and the `gpu` marker.

Real frames are used when SCN_FX_DATA names their folder; without it the same tests run on synthetic frames.
"""

from __future__ import annotations

import os
import re
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.oracle.frames import Frame, available_frames, data_folder, load_frame, synthetic_frame

settings.register_profile(
    "scn_fx",
    deadline=None,  # first calls compile or import; a shared machine stalls
    derandomize=bool(os.environ.get("CI")),
    max_examples=int(os.environ.get("SCN_FX_EXAMPLES", "50")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("scn_fx")

# spconv 2.3.8's CPU build adds into shared rows without synchronisation: with two threads its strided layers
# give another, wrong result in every run. Small tensors are slower with more threads, too.
torch.set_num_threads(1)


@cache
def gpu_problem() -> str:
    """Why the tests marked `gpu` cannot run here; empty if they can."""
    try:
        from scn_fx import _core
    except ImportError as error:
        return str(error)
    return str(_core.cuda_info()["problem"])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device; deselected where there is none")


def _setting() -> str:
    data = data_folder()
    frames = f"real and synthetic ({data})" if data else "synthetic only (SCN_FX_DATA is not set)"
    return f"scn-fx: frames: {frames}; CUDA: {gpu_problem().partition('. ')[0] or 'tested'}"


def pytest_report_header() -> str:
    return _setting()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.verbosity < 0:  # -q hides the header
        terminalreporter.write_line(_setting())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests marked `gpu` where none can run, unless `-m` asks for them: then they fail."""
    if not gpu_problem() or re.search(r"\bgpu\b", config.option.markexpr):
        return
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting:
        config.hook.pytest_deselected(items=wanting)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`frame_name` runs over the frames that are available here."""
    if "frame_name" in metafunc.fixturenames:
        metafunc.parametrize("frame_name", available_frames(), scope="session")


@pytest.fixture(scope="session")
def frame(frame_name: str) -> Frame:
    """Each available frame of the CenterPoint grid in turn: float16 features, int32 indices, the grid."""
    return load_frame(frame_name)


@pytest.fixture(scope="session")
def small_frame() -> Frame:
    """A synthetic frame of some hundred sites in a small grid: for tests that try many things."""
    return synthetic_frame(seed=3, count=500, shape=(9, 48, 40))
