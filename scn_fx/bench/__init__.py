# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the engine, beside spconv. Behind `scn-fx bench` and `benchmarks/`.

Names are imported from the submodules: `scn_fx.bench.probe` measures the memory of the runtime alone, so that
this package must load nothing.
"""

from __future__ import annotations
