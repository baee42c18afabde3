# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the engine on an NVIDIA GPU, beside spconv's CUDA build."""

from __future__ import annotations
