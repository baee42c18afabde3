# SPDX-License-Identifier: Apache-2.0
"""Networks as their authors published them, read from checkouts that the user has fetched."""
