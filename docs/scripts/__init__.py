# SPDX-License-Identifier: Apache-2.0
"""What draws the pictures of these pages; `make pictures` runs it."""
