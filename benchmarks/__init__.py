# SPDX-License-Identifier: Apache-2.0
"""The project's benchmark: `python -m benchmarks`. The measuring itself is `scn_fx.bench`."""
