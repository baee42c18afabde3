# SPDX-License-Identifier: Apache-2.0
"""The C++ and CPU tests with an engine that a sanitizer watches."""
