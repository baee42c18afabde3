// SPDX-License-Identifier: Apache-2.0
// What the kernel of a convolution is chosen by.
#pragma once

#include <cstdint>
#include <string>

#include "core/element_type.h"
#include "core/numerics.h"
#include "cuda/bounds.h"
#include "cuda/convolution/finish_kind.h"

namespace scn::cuda {

struct ConvProblem {
  ElementType precision = ElementType::kInt8;  // of the products
  int32_t in_channels = 0, out_channels = 0, offsets = 0;
  int32_t in_bytes = 0;  // from input row to input row
  int32_t capacity = 0;  // output rows, at most
  FinishKind finish = FinishKind::kAny;

  /// In one line.
  std::string text() const;
};

/// Whether the order of its sums is specified: only chains of multiply-adds may compute it then.
inline bool has_order(const ConvProblem& p) {
  return p.precision == ElementType::kFloat32 ||
         (p.precision == ElementType::kFloat16 && p.in_channels <= kMostChainChannels);
}

/// Whether its sums may have any order, in this precision: what tensor cores compute.
inline bool is_int8(const ConvProblem& p) { return p.precision == ElementType::kInt8; }
inline bool is_unordered_half(const ConvProblem& p) {
  return p.precision == ElementType::kFloat16 && !has_order(p);
}

/// Output channels that kernels compute: every stored form of the result fits, that of one byte a channel
/// too.
inline int32_t padded_channels(const ConvProblem& problem) { return row_bytes(problem.out_channels, 1); }

}  // namespace scn::cuda
