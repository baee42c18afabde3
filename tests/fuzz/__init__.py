# SPDX-License-Identifier: Apache-2.0
"""Hostile inputs: fuzz targets, mutators of files, and the inputs that were found."""
