# SPDX-License-Identifier: Apache-2.0
"""`scn-fx report`: what there is to know of an ONNX file on frames, as one HTML page."""
