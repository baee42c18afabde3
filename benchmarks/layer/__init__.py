# SPDX-License-Identifier: Apache-2.0
"""Times of single layers, kernel by kernel: `python -m benchmarks layer`."""
