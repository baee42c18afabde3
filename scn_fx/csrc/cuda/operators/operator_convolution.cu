// SPDX-License-Identifier: Apache-2.0
// One convolution over a caller's device memory, by the engine's kernels: his map, weights and features are
// brought into the forms that those read.
#include <algorithm>

#include "core/error.h"
#include "core/failures.h"
#include "core/layer.h"
#include "cuda/convolution/convolution.h"
#include "cuda/convolution/put.cuh"
#include "cuda/convolution/quantise.cuh"
#include "cuda/convolution/registry.h"
#include "cuda/maps/map_records.cuh"
#include "cuda/operators/host_convolution.h"
#include "cuda/operators/operators.h"
#include "cuda/runtime/carver.h"
#include "cuda/runtime/device_guard.h"
#include "cuda/runtime/launch.h"
#include "cuda/runtime/read_back.h"
#include "cuda/runtime/streams.h"
#include "cuda/sites/geometry_view.h"

namespace scn {
namespace cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int64_t kMostBlocks = 1 << 16;

/// What an operator counts.
struct Counts {
  int32_t inputs, outputs, far;
  int32_t wrong;      // input values that its precision does not have
  int32_t lost[2];    // FinishView::overflow
  int32_t beyond[2];  // RawWeights::beyond
};

__global__ void begin_counts(Counts* counts, int32_t inputs, int32_t outputs) {
  *counts = Counts{inputs, outputs, 0, 0, {0, 0}, {0, 0}};
}

/// Entries that are no input row count as none: the caller may write to his map meanwhile.
__global__ __launch_bounds__(kThreads) void records_kernel(const __grid_constant__ MapView map,
                                                           const int32_t* entries, int32_t inputs,
                                                           int32_t outputs) {
  const int32_t lane = threadIdx.x & 31, volume = map.geometry.volume;
  const int32_t tiles = (outputs + kTileRows - 1) / kTileRows;
  for (int32_t tile = blockIdx.x * kWarps + (threadIdx.x >> 5); tile < tiles; tile += gridDim.x * kWarps) {
    const Record p{map, map.tiles + int64_t(tile) * map.tile_bytes, lane};
    for (int32_t k = blockIdx.y; k < volume; k += gridDim.y) {
      int32_t row[kLaneRows];
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i) {
        const int32_t output = tile * kTileRows + row_of_lane(lane, i);
        row[i] = output < outputs ? __ldg(entries + int64_t(output) * volume + k) : -1;
        if (uint32_t(row[i]) >= uint32_t(inputs)) row[i] = -1;
      }
      store_any(p, k, row);
    }
  }
}

/// 16 bytes of a stored row a thread.
template <typename T>
__global__ void form_rows_kernel(const T* x, int64_t chunks, int32_t channels, int32_t row_chunks,
                                 ElementType type, float factor, uint4* out, int32_t* wrong) {
  const int32_t per_chunk = type == ElementType::kInt8 ? 16 : type == ElementType::kFloat16 ? 8 : 4;
  const float limit = type == ElementType::kInt8 ? __int_as_float(0x7f800000) : kHalfOverflow;
  int32_t bad = 0;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < chunks;
       i += int64_t(gridDim.x) * kThreads) {
    const int64_t row = i / row_chunks;
    const int32_t first = int32_t(i - row * row_chunks) * per_chunk;
    uint32_t chunk[4] = {0, 0, 0, 0};
#pragma unroll
    for (int32_t j = 0; j < 16; ++j) {
      if (j >= per_chunk || first + j >= channels) break;
      const float v = float(x[row * channels + first + j]);
      bad += !(fabsf(v) < limit);
      put(chunk, type, j, type == ElementType::kInt8 ? quantised(__fmul_rn(v, factor)) : v);
    }
    out[i] = make_uint4(chunk[0], chunk[1], chunk[2], chunk[3]);
  }
  if (bad) atomicAdd(wrong, bad);
}

/// A call's memory, and the engine's view of it.
struct Convolution {
  ConvConfig config;
  ConvCall call;
  ElementType type;  // of the input
  void* rows;        // null: the given ones are read
  Counts* counts;
  int64_t bytes;
};

/// The only form of the result, at `out`.
FinishView finish_of(const CudaConvolutionCall& call) {
  FinishView f{};
  f.activation = call.activation;
  f.channels = int32_t(call.out_channels);
  f.emission_count = 1;
  EmissionView& e = f.emissions[0];
  e.type = call.output_amax != 0.0 ? ElementType::kInt8
           : call.round_output     ? ElementType::kFloat16
                                   : ElementType::kFloat32;
  e.rounds = call.round_output;
  e.factor = call.output_amax != 0.0 ? int8_factor(float(call.output_amax)) : 0.0f;
  e.stride = row_bytes(int32_t(call.out_channels), element_bytes(e.type));
  e.columns = e.stride / element_bytes(e.type);
  e.out = call.result;
  return f;
}

ConvProblem problem_of(const CudaConvolutionCall& call, const FinishView& finish) {
  ConvProblem p;
  p.precision = call.precision;
  p.in_channels = int32_t(call.in_channels);
  p.out_channels = int32_t(call.out_channels);
  p.offsets = int32_t(call.offsets);
  // Layers in float32 read the caller's rows, which have no padding.
  p.in_bytes = call.precision == ElementType::kFloat32 ? p.in_channels * int32_t(sizeof(float))
                                                       : row_bytes(p.in_channels, element_bytes(p.precision));
  p.capacity = int32_t(call.out_sites);
  p.finish = finish_kind(call.precision, finish);
  return p;
}

Convolution convolution_of(const CudaConvolutionCall& call, const DeviceLimits& limits) {
  Convolution c{};
  c.call.finish = finish_of(call);
  const ConvProblem problem = problem_of(call, c.call.finish);
  c.config = call.kernel.empty() ? choose(problem, limits, call.layer)
                                 : choose(problem, limits, call.layer, call.kernel);
  Carver carver(call.scratch);
  c.call.weights.packed = carver.take<char>(c.config.packed_bytes);
  c.call.weights.scale = carver.take<float>(c.config.padded);
  c.call.weights.bias = carver.take<float>(c.config.padded);
  c.counts = carver.take<Counts>(1);
  c.type = call.precision == ElementType::kInt8 ? ElementType::kInt8 : ElementType::kFloat16;
  c.call.x = call.features;
  if (call.precision != ElementType::kFloat32) {
    c.rows = carver.take<char>((Size(call.in_sites) + 1) * c.config.problem.in_bytes);
    c.call.x = c.rows;
  }
  MapView& map = c.call.map;
  map.geometry.volume = int32_t(call.offsets);
  map.input.capacity = int32_t(call.in_sites);
  map.output.capacity = int32_t(call.out_sites);
  map.tile_bytes = map_tile_bytes(map.geometry.volume);
  const Size tiles = (call.out_sites + kTileRows - 1) / kTileRows;
  // Rows in any order may be far from each other in each tile and at each offset.
  const Size far = call.in_sites > kFarthest ? tiles * call.offsets : Size(0);
  map.far_capacity = narrow(far.value(), "The number of far slots of a kernel map");
  map.tiles = carver.take<char>(tiles * map.tile_bytes);
  map.far = carver.take<int32_t>(far * kTileRows);
  if (c.counts) {
    map.input.count = &c.counts->inputs;
    map.output.count = &c.counts->outputs;
    map.far_count = &c.counts->far;
    c.call.finish.overflow = c.counts->lost;
  }
  c.call.after_maps = true;
  c.bytes = carver.used().value();
  return c;
}

void form_rows(const CudaConvolutionCall& call, const Convolution& c, cudaStream_t stream) {
  const int32_t row_chunks = c.config.problem.in_bytes / 16;
  const int64_t chunks = (Size(call.in_sites) * row_chunks).value();
  if (!chunks) return;
  const float factor = call.precision == ElementType::kInt8 ? int8_factor(float(call.input_amax)) : 0.0f;
  const uint32_t blocks = blocks_for(chunks, kThreads, kMostBlocks);
  const int32_t channels = int32_t(call.in_channels);
  uint4* const out = static_cast<uint4*>(c.rows);
  if (call.half_features) {
    form_rows_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<const __half*>(call.features), chunks,
                                                      channels, row_chunks, c.type, factor, out,
                                                      &c.counts->wrong);
  } else {
    form_rows_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<const float*>(call.features), chunks,
                                                      channels, row_chunks, c.type, factor, out,
                                                      &c.counts->wrong);
  }
  check_launch("preparing features");
}

void check_call(const CudaConvolutionCall& call) {
  check_rows(call.in_sites, call.in_channels, call.layer);
  check_rows(call.out_sites, call.out_channels, call.layer, "its result");
  if (std::max(call.in_sites, call.out_sites) > kMostRows) {
    fail(ErrorKind::kSite, call.layer, ": ", std::max(call.in_sites, call.out_sites),
         " sites are more than the ", kMostRows,
         " that CUDA operators take. Feed fewer voxels, or use the CPU.");
  }
  check_depth({call.offsets, call.in_channels, call.precision, call.layer});
}

/// Throws for values that the call's precision does not have; waits.
void check_values(const CudaConvolutionCall& call, const Counts* counts, cudaStream_t stream) {
  const Counts found = read_back(counts, 1, stream)[0];
  for (int i = 0; i < 2; ++i) {
    if (!found.beyond[i]) continue;
    fail(ErrorKind::kOverflow, call.layer, ": its ", i ? "bias" : "weight", " holds ", found.beyond[i],
         " values that do not fit in float16 (65504 at most). Rescale the layer, or run it in fp32.");
  }
  if (found.wrong && call.precision == ElementType::kFloat16)
    fail_overflow(call.layer + " (its input)", found.wrong);
  if (found.wrong) fail_not_finite(call.layer + ": its input", found.wrong);
  if (found.lost[0] || found.lost[1]) fail_overflow(call.layer, std::max(found.lost[0], found.lost[1]));
}

/// Seconds of further runs, each between two events.
std::vector<double> timed_runs(const Convolution& c, int32_t repeat, cudaStream_t stream) {
  const Event before(cudaEventDefault), after(cudaEventDefault);
  std::vector<double> seconds;
  for (int32_t i = 0; i < repeat; ++i) {
    check(cudaEventRecord(before, stream), "recording an event");
    convolve(c.config, c.call, stream);
    check(cudaEventRecord(after, stream), "recording an event");
    check(cudaEventSynchronize(after), "waiting for an operator");
    float milliseconds = 0.0f;
    check(cudaEventElapsedTime(&milliseconds, before, after), "reading a time");
    seconds.push_back(double(milliseconds) * 1e-3);
  }
  return seconds;
}

}  // namespace
}  // namespace cuda

using namespace cuda;

CudaConvolutionSizes cuda_convolution_sizes(const CudaConvolutionCall& call) {
  check_call(call);
  CudaConvolutionCall measured = call;
  measured.scratch = nullptr;
  const Convolution c = convolution_of(measured, device_limits(call.place.device));
  return {c.bytes, c.call.finish.emissions[0].columns, c.config.text()};
}

std::vector<double> cuda_convolve(const CudaConvolutionCall& call, int32_t repeat) {
  if (!call.out_sites) return std::vector<double>(size_t(repeat));
  const DeviceGuard guard(call.place.device);
  const cudaStream_t stream = cudaStream_t(call.place.stream);
  const DeviceLimits limits = device_limits(call.place.device);
  Convolution c = convolution_of(call, limits);
  prepare(c.config, limits);
  begin_counts<<<1, 1, 0, stream>>>(c.counts, int32_t(call.in_sites), int32_t(call.out_sites));
  pack_weights(c.config,
               {call.weight, call.bias, float(call.input_amax), call.weight_amax,
                call.precision == ElementType::kFloat32 ? nullptr : c.counts->beyond},
               c.call.weights, stream);
  if (c.rows) form_rows(call, c, stream);
  const int64_t tiles = (call.out_sites + kTileRows - 1) / kTileRows;
  const dim3 grid(blocks_for(tiles, kWarps, kMostBlocks), uint32_t(std::min<int64_t>(call.offsets, 4)));
  records_kernel<<<grid, kThreads, 0, stream>>>(c.call.map, call.map, int32_t(call.in_sites),
                                                int32_t(call.out_sites));
  check_launch("preparing a kernel map");
  convolve(c.config, c.call, stream);
  // float32 has every value of its results
  if (call.precision != ElementType::kFloat32 || call.round_output) check_values(call, c.counts, stream);
  return timed_runs(c, repeat, stream);
}

std::vector<std::string> cuda_convolution_kernels(int device, const ConvolutionCall& call) {
  CudaConvolutionCall asked = device_call(device, call);
  check_call(asked);
  return kernel_names(problem_of(asked, finish_of(asked)), device_limits(device));
}

}  // namespace scn
