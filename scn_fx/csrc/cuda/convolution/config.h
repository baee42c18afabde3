// SPDX-License-Identifier: Apache-2.0
// How a convolution runs: which kernel, and all that packing its weights and launching it depend on.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "cuda/convolution/problem.h"

namespace scn::cuda {

struct ConvKernel;

/// Where a kernel reads weights: through the first-level cache, or from shared memory, where all of them lie,
/// or a ring through which they pass.
enum class WeightPlace { kCache, kResident, kRing };

struct ConvConfig {
  ConvProblem problem;
  const ConvKernel* kernel = nullptr;    // of the registry
  const void* symbol = nullptr;          // its instance
  FinishKind finish = FinishKind::kAny;  // of the instance

  int32_t padded = 0;                        // output channels that are computed,
  int32_t block = 0;                         // and by one block
  int32_t unit_offsets = 0, unit_bytes = 0;  // of K; chains have no units
  int32_t units = 0;                         // as weights are padded
  WeightPlace place = WeightPlace::kCache;
  int32_t slots = 0;  // of weights, in shared memory
  int64_t packed_bytes = 0;

  int32_t threads = 0, shared_bytes = 0;  // of a block
  int32_t cluster = 1;                    // blocks that share their rows
  int32_t block_rows = 0;                 // output rows that a block takes at a time
  int32_t together = 0;                   // blocks on a multiprocessor; 0: as many as fit
  bool own_wave = false;  // the blocks of each block of channels fill the device, not those of all
  bool early = false;     // may start before the kernel before has ended
  int32_t blocks = 0;     // along the rows; set by prepare()

  int32_t column_blocks() const { return padded / block; }

  /// What else a kernel is given of its own: a struct of numbers.
  template <typename Layout>
  void set_layout(const Layout& layout) {
    static_assert(sizeof(Layout) <= sizeof(words) && std::is_trivially_copyable<Layout>::value, "numbers");
    std::memcpy(words.data(), &layout, sizeof(Layout));
  }
  template <typename Layout>
  Layout layout() const {
    Layout layout;
    std::memcpy(&layout, words.data(), sizeof(Layout));
    return layout;
  }

  /// In one line, as "hopper-int8 64x128B resident 4 warpgroups 3 slots 180 KiB, int8 rows".
  std::string text() const;

 private:
  std::array<int32_t, 16> words{};
};

}  // namespace scn::cuda
