// SPDX-License-Identifier: Apache-2.0
// Which kernel forms the sums of a layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/types.h"
#include "cpu/kernels/kernels.h"

namespace scn {

/// What the choice depends on.
struct ConvProblem {
  ElementType precision;
  int32_t in_channels, out_channels, offsets;
  bool nonnegative;  // int8: all features in [0, 127]
  bool half;         // features are stored as float16

  std::string text() const;
};

/// The choice: one of the two.
struct ConvConfig {
  const char* name = "";
  Int8Gemm int8 = nullptr;
  FloatGemm floats = nullptr;
};

/// The first line of the registry that suits, for the instruction set of `kernels`.
ConvConfig choose(const ConvProblem& problem, const Kernels& kernels);
/// The kernel called `name`, of any instruction set that this processor has. Throws kArgument, with the
/// layer's name, for one that cannot compute the problem here.
ConvConfig choose(const ConvProblem& problem, const std::string& name, const std::string& layer);
/// The names of all kernels that can, in the order of the registry.
std::vector<std::string> kernel_names(const ConvProblem& problem);

}  // namespace scn
