// SPDX-License-Identifier: Apache-2.0
// What tensor cores add products of a type up in.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace scn::cuda {

template <typename T>
struct Accumulator;
template <>
struct Accumulator<int8_t> {
  using type = int32_t;
};
template <>
struct Accumulator<__half> {
  using type = float;
};

}  // namespace scn::cuda
