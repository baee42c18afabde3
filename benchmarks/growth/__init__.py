# SPDX-License-Identifier: Apache-2.0
"""Time against voxels and against batch size; behind `python -m benchmarks growth`."""
