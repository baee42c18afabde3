// SPDX-License-Identifier: Apache-2.0
// Any bytes as an ONNX file, then frames. Inputs are plain files: what a frame looks like is read from a
// field that onnx.proto does not have, or follows from the bytes where it is missing.
#include <cstdint>
#include <string>

#include "frames.h"
#include "onnx_mutator.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string onnx(reinterpret_cast<const char*>(data), size);
  const std::string choices = fuzz::frame_choices(onnx);
  fuzz::Bytes bytes(reinterpret_cast<const uint8_t*>(choices.data()), choices.size());
  fuzz::run_file(onnx, bytes);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  return fuzz::mutate_onnx(data, size, most, seed);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* first, size_t first_size, const uint8_t* second,
                                            size_t second_size, uint8_t* out, size_t most, unsigned seed) {
  return fuzz::splice_onnx(std::string(reinterpret_cast<const char*>(first), first_size),
                           std::string(reinterpret_cast<const char*>(second), second_size), out, most, seed);
}
