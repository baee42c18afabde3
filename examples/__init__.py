# SPDX-License-Identifier: Apache-2.0
"""Programs that show scn-fx at work; not installed with it."""
