// SPDX-License-Identifier: Apache-2.0
// Single operators over caller-owned arrays: what the torch custom operators run. The same kernels as the
// engine.
#pragma once

#include <cstdint>
#include <string>

#include "cpu/convolution.h"
#include "parallel.h"
#include "types.h"

namespace scn {

/// One convolution over float32 arrays, with the arithmetic of its precision.
struct ConvCall {
  WeightSource weights;
  const float* features;  // [in_sites, in_channels]; fp16 precision rounds them to float16
  int64_t in_sites;
  const int32_t* map;  // [out_sites, offsets]
  int64_t out_sites;
  bool round_output;  // output_precision fp16
  bool relu;
};

/// y [out_sites, out_channels] float32. Throws when a rounded value does not fit in float16.
void convolve(const ConvCall& call, ThreadPool& pool, float* y);

struct AddCall {
  const float *a, *b;  // [rows, channels] each
  int64_t rows;
  int32_t channels;
  Precision precision;  // fp16 rounds both inputs to float16
  bool round_output, relu;
  float amax0, amax1;  // int8 only
  std::string layer;
};

/// y [rows, channels] float32.
void add(const AddCall& call, ThreadPool& pool, float* y);

}  // namespace scn
