// SPDX-License-Identifier: Apache-2.0
// What a convolution is given, and what is checked of it, whichever backend runs it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/activation.h"
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
/// The part of it that reads neither weight nor bias.
void check_ranges(const LayerWeights& weights);

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

/// A dynamic range as float32, in which kernels compute; throws kArgument unless it is usable. `what` as in
/// "the dynamic range of its input".
float checked_range(double amax, const char* what, const std::string& layer);

/// One convolution over a caller's arrays in host memory, with the arithmetic of its precision.
struct ConvolutionCall {
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
  double output_amax;  // stores the result as int8 of this range, as engines do; 0: as it is
  std::string layer;
  std::string kernel;  // by its name in the backend's registry; empty: the one that engines choose
  int32_t repeat;      // further runs, each timed
};

/// Throws unless its sizes fit kernels, and int8 has the ranges of its weight.
void check_sizes(const ConvolutionCall& call);

/// In what a result is stored.
inline ElementType result_type(const ConvolutionCall& call) {
  if (call.output_amax != 0.0) return ElementType::kInt8;
  return call.round_output ? ElementType::kFloat16 : ElementType::kFloat32;
}

/// A convolution's result, and how it came about.
struct Convolved {
  ElementType type;              // result_type()
  int64_t columns;               // of a stored row, of which the first out_channels count
  std::unique_ptr<char[]> rows;  // [out_sites, columns]
  std::string kernel;            // that ran, in one line that begins with its name
  std::vector<double> seconds;   // of each repeated run: the product and its finish, over prepared operands
};

/// A kernel was asked for that cannot compute the problem here; `able` are those that can.
[[noreturn]] void fail_kernel(const std::string& layer, const std::string& wanted, const std::string& problem,
                              const std::vector<std::string>& able);

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
