// SPDX-License-Identifier: Apache-2.0
// What follows a step's sums, as kernels see it; plain structs passed by value.
#pragma once

#include <cstdint>

#include "core/activation.h"
#include "core/element_type.h"
#include "core/numerics.h"
#include "cuda/bounds.h"

namespace scn::cuda {

/// One stored form of a result: rows, or the cells of a dense map.
struct EmissionView {
  ElementType type;
  const float* scale;  // of an affine map before the activation, [columns]; null: none
  const float* shift;
  Activation activation;
  bool rounds_first, rounds;  // to float16, before the affine map and behind the activation
  bool dense;                 // out is [batch, columns, cells] instead of rows
  float factor;               // int8: 127 / amax
  int32_t columns;            // of a row, zero beyond the result's channels; dense: channels
  int32_t stride;             // bytes from row to row
  int32_t cells;              // dense: height * width, times its depth
  int32_t height, width;      // dense: cells along y and x
  void* out;
};

/// The Add, or product, behind a result ("self"); convolutions take Adds alone.
struct ResidualView {
  const void* other;  // rows of `type`; null: no Add
  ElementType type;
  bool rounds, self_is_second;  // self is rounded to float16 first; is the second operand
  AddScales scales;             // int8
  int32_t stride;               // bytes from row to row
  bool product;                 // of stored rows
  float scale;                  // int8 products
};

struct FinishView {
  const float* scale;  // [padded channels]: int8 products of a convolution, or the affine map of stored rows
  const float* bias;   // [padded channels]
  Activation activation;
  bool rounds;       // to float16, before the Add
  int32_t channels;  // real ones
  int32_t emission_count;
  ResidualView residual;
  EmissionView emissions[kMaxEmissions];
  int32_t* overflow;  // two entries: lost before the Add, lost when stored
};

}  // namespace scn::cuda
