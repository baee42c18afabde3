# SPDX-License-Identifier: Apache-2.0
"""Which networks run: every stage from capture to engine, for our definitions and for fetched originals."""
