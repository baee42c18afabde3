# SPDX-License-Identifier: Apache-2.0
"""A long stream of frames through one engine of each precision: same bits, no growth, errors where due."""
