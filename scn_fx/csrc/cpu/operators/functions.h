// SPDX-License-Identifier: Apache-2.0
// Single operators over caller-owned arrays: what the torch custom operators run. The same kernels as the
// engine. They check all that kernels rely on, whoever calls them, and read each value of the caller's once:
// another thread may write to his arrays meanwhile.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/activation.h"
#include "core/memory_budget.h"
#include "core/parallel.h"
#include "core/types.h"
#include "cpu/convolution/convolution.h"

namespace scn {

/// One convolution over float32 arrays, with the arithmetic of its precision.
struct ConvCall {
  const float* features;  // [in_sites, in_channels]; fp16 precision rounds them to float16
  int64_t in_sites, in_channels;
  const float* weight;  // [out_channels, offsets, in_channels]
  int64_t out_channels, offsets;
  const float* bias;         // [out_channels] or null
  const float* weight_amax;  // [out_channels], int8 only: both are read more than once
  double input_amax;         // int8 only
  const int32_t* map;        // [out_sites, offsets]
  int64_t out_sites;
  ElementType precision;
  bool round_output;  // output_precision fp16
  Activation activation;
  std::string layer;
};

/// y [out_sites, out_channels] float32. Throws when a rounded value does not fit in float16.
std::unique_ptr<float[]> convolve(const ConvCall& call, ThreadPool& pool, MemoryBudget& budget);

struct AddCall {
  const float *a, *b;  // [rows, channels] each
  int64_t rows, channels;
  ElementType precision;  // fp16 rounds both inputs to float16
  bool round_output;
  Activation activation;
  double amax0, amax1;  // int8 only
  std::string layer;
};

/// y [rows, channels] float32.
std::unique_ptr<float[]> add(const AddCall& call, ThreadPool& pool, MemoryBudget& budget);

}  // namespace scn
