# SPDX-License-Identifier: Apache-2.0
"""Files of every kind: written whole or not at all, and read with their kind, size and content checked first.

Every reader and writer of the project goes through these modules, so that a damaged file gives one of our
errors, and a full disk leaves the earlier file. They need the standard library alone, `arrays` NumPy, `yaml`
PyYAML and `onnx_models` the compiled engine.
"""
