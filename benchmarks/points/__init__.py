# SPDX-License-Identifier: Apache-2.0
"""From points to the bird's-eye-view map, beside spconv: see __main__."""
