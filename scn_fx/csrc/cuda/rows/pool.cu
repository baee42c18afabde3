// SPDX-License-Identifier: Apache-2.0
// Pooling, and normalisation of rows. A thread has a row.
#include <algorithm>

#include "cuda/rows/emit_row.cuh"
#include "cuda/rows/rows.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/device_code.cuh"
#include "cuda/runtime/launch.h"
#include "cuda/sites/lookup.cuh"

namespace scn::cuda {
namespace {

constexpr int kThreads = 256;

uint32_t blocks_for(int64_t items) { return cuda::blocks_for(items, kThreads, 4096); }

/// As parameters of a kernel: one input has a kernel of its own, in which nothing depends on their number.
template <int kMost>
struct PoolTable {
  Pooling kind;
  int32_t inputs;
  PooledRows input[kMost];
};

static_assert(sizeof(PoolTable<kMostUnionParts>) + sizeof(FinishView) <= 4096, "parameters of a kernel");

template <int kMost>
__global__ void pool_kernel(const __grid_constant__ PoolTable<kMost> v,
                            const __grid_constant__ FinishView f) {
  const SitesView& output = v.input[0].map.output;
  const int32_t rows = min(*output.count, output.capacity), inputs = kMost == 1 ? 1 : v.inputs;
  Lost lost;
  for (int32_t row = blockIdx.x * kThreads + threadIdx.x; row < rows; row += gridDim.x * kThreads) {
    const int32_t tile = row / kTileRows, place = row_place(row % kTileRows);
    emit_row(
        f, row,
        [&](int32_t c) {
          float y = 0.0f;
          int32_t count = 0;
          for (int32_t i = 0; i < inputs; ++i) {
            const PooledRows& in = v.input[i];
            const ResidualView x = operand_of(in.rows, in.type, in.stride);
            const char* const record = in.map.tiles + int64_t(tile) * in.map.tile_bytes;
            for (int32_t k = 0; k < in.map.geometry.volume; ++k) {
              const int32_t input = mapped_row(in.map, record, k, place);
              if (input < 0) continue;
              const float value = other_operand(x, input, c);
              if (v.kind != Pooling::kMax) {
                y = __fadd_rn(y, value);
              } else if (count == 0 || !(value <= y || y != y)) {
                y = value;
              }
              ++count;
            }
          }
          return v.kind == Pooling::kMean && count > 1 ? __fdiv_rn(y, float(count)) : y;
        },
        lost);
  }
  report_lost(f, lost);
}

template <int kMost>
void launch_pool(const std::vector<PooledRows>& inputs, Pooling kind, const FinishView& finish,
                 cudaStream_t stream) {
  PoolTable<kMost> table{};
  table.kind = kind;
  table.inputs = int32_t(inputs.size());
  std::copy(inputs.begin(), inputs.end(), table.input);
  pool_kernel<kMost><<<blocks_for(inputs[0].map.output.capacity), kThreads, 0, stream>>>(table, finish);
  check_launch("pooling");
}

__global__ void group_norm_kernel(const __grid_constant__ GroupNormView v, const int32_t* count,
                                  const __grid_constant__ FinishView f) {
  const int32_t rows = *count, of_group = f.channels / v.groups;
  const ResidualView x = operand_of(v.rows, v.type, v.stride);
  Lost lost;
  for (int32_t row = blockIdx.x * kThreads + threadIdx.x; row < rows; row += gridDim.x * kThreads) {
    int32_t group = -1;  // whose mean and deviation are at hand
    double mean = 0.0, deviation = 1.0;
    const auto at = [&](int32_t c) { return double(other_operand(x, row, c)); };
    const auto measure = [&] {
      const int32_t first = group * of_group;
      double sum = 0.0, squares = 0.0;
      for (int32_t c = first; c < first + of_group; ++c) sum = __dadd_rn(sum, at(c));
      mean = __ddiv_rn(sum, double(of_group));
      for (int32_t c = first; c < first + of_group; ++c) {
        const double centred = __dsub_rn(at(c), mean);
        squares = __dadd_rn(squares, __dmul_rn(centred, centred));
      }
      deviation = __dsqrt_rn(__dadd_rn(__ddiv_rn(squares, double(of_group)), double(v.epsilon)));
    };
    emit_row(
        f, row,
        [&](int32_t c) {
          if (c / of_group != group) {
            group = c / of_group;
            measure();
          }
          const double normal = __ddiv_rn(__dsub_rn(at(c), mean), deviation);
          return float(__dadd_rn(__dmul_rn(normal, double(__ldg(v.scale + c))), double(__ldg(v.shift + c))));
        },
        lost);
  }
  report_lost(f, lost);
}

}  // namespace

void pool_rows(const std::vector<PooledRows>& inputs, Pooling kind, const FinishView& finish,
               cudaStream_t stream) {
  if (inputs.size() == 1) {
    launch_pool<1>(inputs, kind, finish, stream);
  } else {
    launch_pool<kMostUnionParts>(inputs, kind, finish, stream);
  }
}

void group_norm_rows(const GroupNormView& view, const SitesView& set, const FinishView& finish,
                     cudaStream_t stream) {
  group_norm_kernel<<<blocks_for(set.capacity), kThreads, 0, stream>>>(view, set.count, finish);
  check_launch("normalising rows");
}

}  // namespace scn::cuda
