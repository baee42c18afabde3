# SPDX-License-Identifier: Apache-2.0
"""A U-Net and a pillar encoder beside spconv; behind `python -m benchmarks speed`."""
