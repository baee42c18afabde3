// SPDX-License-Identifier: Apache-2.0
// One convolution on the CPU: weights prepared once, then tiles of output rows shared out to the threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/layer.h"
#include "core/line_vector.h"
#include "core/parallel.h"
#include "core/sizes.h"
#include "core/types.h"
#include "cpu/convolution/config.h"
#include "cpu/kernels/kernels.h"

namespace scn {

/// Weights, scales and bias in the form that the kernels read.
struct PreparedWeights {
  ElementType precision = ElementType::kFloat32;
  int32_t in_channels = 0, out_channels = 0, offsets = 0;
  int32_t in_padded = 0, out_padded = 0;
  LineVector<int8_t> int8;  // packed, precision int8
  LineVector<int32_t>
      offset_sums;              // [offsets, out_padded], precision int8: 128 * sums over the input channels
  std::vector<uint8_t> groups;  // quads per 16-bit sum, precision int8
  std::vector<int16_t> shifts;  // that those sums start at; empty if all are zero
  LineVector<float> floats;     // packed, other precisions
  std::vector<float> scale;     // s_x * s_w[k], precision int8
  std::vector<float> bias;      // zeros when the layer has none
};

/// Rounds, quantises and packs weights, after the checks of check_weights(): int8 and fp16 round weight and
/// bias to float16 first.
PreparedWeights prepare_weights(const LayerWeights& weights);
/// The same with scales, and zeros in place of weight and bias, which are not read: as long as they will be.
PreparedWeights sized_weights(const LayerWeights& weights);
/// Fills in `offset_sums`, of packed int8 weights.
void sum_offsets(PreparedWeights& weights);
/// Memory that prepared weights take, in bytes.
Size prepared_bytes(ElementType precision, int32_t out_channels, int32_t offsets, int32_t in_channels);
/// Scratch that a thread needs for a convolution, in bytes.
Size convolution_scratch(int32_t out_channels, int32_t offsets, int32_t in_channels);

/// Elements per int8 row of a value with `channels` channels.
inline int32_t int8_row(int32_t channels) {
  return (channels + kInt8RowMultiple - 1) / kInt8RowMultiple * kInt8RowMultiple;
}

/// Elements per row of float16.
inline int32_t half_row(int32_t channels) {
  return (channels + kHalfRowMultiple - 1) / kHalfRowMultiple * kHalfRowMultiple;
}

/// What a convolution reads: rows of int8, or of float32 or float16 that its precision computes in float32.
struct FeatureRows {
  const void* data;
  int64_t stride;    // elements
  bool nonnegative;  // int8: all in [0, 127]
  bool half;         // float16, with kHalfPadding more elements behind the last row
};

/// Runs the gathering product and `finish` (whose sources, scale, bias and scratch are filled in here) over
/// all `rows` of a map.
Overflow run_convolution(const Kernels& kernels, const ConvConfig& config, const PreparedWeights& weights,
                         const FeatureRows& x, const MapView& map, int64_t rows, Finish finish,
                         ThreadPool& pool);

/// Runs `finish` (its source set, its scratch filled in here) over `rows` rows.
Overflow run_finish(const Kernels& kernels, Finish finish, int64_t rows, ThreadPool& pool);

/// dense [batch, channels, *shape] of `element` bytes each, zero where there is no site. Rows of `features`
/// are `stride` elements apart.
void scatter_dense(const void* features, int64_t element, int64_t stride, const Site* sites, int64_t count,
                   int32_t channels, int32_t batch, const Triple& shape, ThreadPool& pool, void* dense);

}  // namespace scn
