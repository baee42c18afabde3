// SPDX-License-Identifier: Apache-2.0
// Pooling over all sites of a batch entry.
#pragma once

#include <vector>

#include "core/buffer.h"
#include "core/parallel.h"
#include "core/pooling.h"
#include "core/types.h"
#include "cpu/convolution/convolution.h"

namespace scn {

/// Kept from frame to frame.
struct GlobalPoolMemory {
  std::vector<int64_t> first;  // [batch + 1], row of each batch entry
  Buffer<double> chunks;       // [chunk_place(rows, batch), channels]

  static Size bytes_for(int64_t rows, int32_t batch, int32_t channels) {
    return (Size(batch) + 1) * sizeof(int64_t) + Size(chunk_place(rows, batch)) * channels * sizeof(double);
  }
  int64_t bytes() const { return int64_t(first.capacity() * sizeof(int64_t)) + chunks.bytes(); }
};

/// Writes [batch, channels] of float16 (`half`) or float32 to `out`, of rows of float16 or float32 whose
/// sites ascend. Sums are made in float64, chunk by chunk, and rounded to float32; a mean is divided first.
/// The largest of several is NaN if one of them is. An entry without sites gives zeros. Returns how many
/// values float16 does not have.
int64_t run_global_pool(const Kernels& kernels, Pooling kind, const FeatureRows& x, int32_t channels,
                        const Site* sites, int64_t rows, int32_t batch, bool half, ThreadPool& pool,
                        GlobalPoolMemory* memory, void* out);

}  // namespace scn
