// SPDX-License-Identifier: Apache-2.0
// What a convolution is given, and what is checked of it, whichever backend runs it.
#pragma once

#include <cstdint>
#include <string>

#include "core/types.h"

namespace scn {

/// Weights of a layer as a file or a caller has them.
struct LayerWeights {
  const float* weight;  // [out, offsets, in]
  const float* bias;    // [out] or null
  int32_t out_channels, offsets, in_channels;
  ElementType precision;
  float input_amax;          // int8 only
  const float* weight_amax;  // [out], int8 only
  std::string layer;
};

/// Throws for kernels of too many offsets, when an int8 sum could leave 32 bits, when a range cannot be
/// computed with, and, in int8 and fp16, when a weight or bias does not fit in float16.
void check_weights(const LayerWeights& weights);

/// What bounds the sums of a layer.
struct LayerDepth {
  int64_t offsets, in_channels;
  ElementType precision;
  std::string layer;
};
/// Throws for kernels of too many offsets, and when an int8 sum could leave 32 bits.
void check_depth(const LayerDepth& depth);

/// Throws unless `what`, as "features", have a number of rows and channels that kernels can number.
void check_rows(int64_t rows, int64_t channels, const std::string& layer, const char* what = "features");

/// What an operator's messages call it: its layer, if that has a name.
std::string operator_label(const std::string& layer, const char* kind);

/// q(v, amax) of a weight, with factor = 127 / amax.
int8_t quantise_weight(float v, float factor);

/// Sites as a caller has them, in grids numbered from 0 to batch - 1.
struct GivenSites {
  const Site* rows;
  int64_t count;
  int64_t batch;
};

}  // namespace scn
