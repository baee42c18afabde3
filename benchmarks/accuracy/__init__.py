# SPDX-License-Identifier: Apache-2.0
"""What int8 costs on networks that were really trained, method by method: the tables of docs/explanation."""
