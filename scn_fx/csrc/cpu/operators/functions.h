// SPDX-License-Identifier: Apache-2.0
// Single operators over caller-owned arrays: what the torch custom operators run. The same kernels as the
// engine. They check all that kernels rely on, whoever calls them, and read each value of the caller's once:
// another thread may write to his arrays meanwhile.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/activation.h"
#include "core/layer.h"
#include "core/memory_budget.h"
#include "core/parallel.h"
#include "core/types.h"

namespace scn {

/// Runs a convolution by call.kernel, of any instruction set that this processor has, or else by the one that
/// engines choose. Throws when a rounded value does not fit in float16.
Convolved convolve(const ConvolutionCall& call, ThreadPool& pool, MemoryBudget& budget);
/// The names of all kernels that can run it here.
std::vector<std::string> convolution_kernels(const ConvolutionCall& call, ThreadPool& pool,
                                             MemoryBudget& budget);

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
