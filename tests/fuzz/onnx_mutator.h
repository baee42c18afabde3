// SPDX-License-Identifier: Apache-2.0
// Mutations of ONNX files that keep them readable: lengths stay right, values go to their edges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fuzz {

/// The field of a file that holds the choices of its options and frames; onnx.proto has none of that number.
constexpr uint32_t kChoices = 2047;

/// Choices of options and frames that a file carries, or that follow from its bytes.
std::string frame_choices(const std::string& onnx);

/// As LLVMFuzzerCustomMutator: changes `data` in place, returns its new size.
size_t mutate_onnx(uint8_t* data, size_t size, size_t most, unsigned seed);

/// As LLVMFuzzerCustomCrossOver: `first` with a message or a list replaced by one of the same kind of
/// `second`.
size_t splice_onnx(const std::string& first, const std::string& second, uint8_t* out, size_t most,
                   unsigned seed);

}  // namespace fuzz
