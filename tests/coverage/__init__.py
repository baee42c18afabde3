# SPDX-License-Identifier: Apache-2.0
"""Which lines the tests run, of Python and of the C++ of the CPU: `python -m tests.coverage`."""
