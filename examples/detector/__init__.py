# SPDX-License-Identifier: Apache-2.0
"""Train a CenterPoint-style detector on synthetic scenes with the operators of scn-fx."""
