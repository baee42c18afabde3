// SPDX-License-Identifier: Apache-2.0
// Operators that work row by row.
#include "core/failures.h"
#include "cuda/convolution/activations.cuh"
#include "cuda/convolution/lost.cuh"
#include "cuda/convolution/quantise.cuh"
#include "cuda/operators/operators.h"
#include "cuda/runtime/device_guard.h"
#include "cuda/runtime/launch.h"
#include "cuda/runtime/read_back.h"

namespace scn {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 16;

template <typename Chunk>
__device__ __forceinline__ Chunk zeros();
template <>
__device__ __forceinline__ float zeros<float>() {
  return 0.0f;
}
template <>
__device__ __forceinline__ float4 zeros<float4>() {
  return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

/// `width`: chunks of a row.
template <typename Chunk>
__global__ void gather_kernel(const Chunk* x, int32_t x_rows, int32_t width, const int32_t* map,
                              int64_t chunks, Chunk* out) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < chunks;
       i += int64_t(gridDim.x) * kThreads) {
    const int64_t entry = i / width;
    const int32_t row = __ldg(map + entry);
    out[i] =
        uint32_t(row) < uint32_t(x_rows) ? x[int64_t(row) * width + (i - entry * width)] : zeros<Chunk>();
  }
}

template <typename Chunk>
void launch_gather(const float* x, int64_t x_rows, int64_t width, const int32_t* map, int64_t chunks,
                   float* out, cudaStream_t stream) {
  gather_kernel<<<blocks_for(chunks, kThreads, kMostBlocks), kThreads, 0, stream>>>(
      reinterpret_cast<const Chunk*>(x), int32_t(x_rows), int32_t(width), map, chunks,
      reinterpret_cast<Chunk*>(out));
  check_launch("gathering rows");
}

/// What an Add does with its operands: as a step's residual, with both at hand as they are.
struct AddView {
  const float *a, *b;
  float factor[2], scale[2];  // int8: 127 / amax, amax / 127
  bool int8, half;            // operands are quantised, or rounded to float16
  bool round_output;
  Activation activation;
};

/// counts: values of either operand that int8 does not have, or second operands that float16 does not; then
/// values lost before the sum, and when it is stored.
__global__ void sum_kernel(const AddView v, int64_t count, int32_t* counts, void* out) {
  int32_t wrong[2] = {0, 0};
  Lost lost;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * kThreads) {
    float a = v.a[i], b = v.b[i], y;
    if (v.int8) {
      wrong[0] += !(fabsf(a) < __int_as_float(0x7f800000));
      wrong[1] += !(fabsf(b) < __int_as_float(0x7f800000));
      a = quantised(__fmul_rn(a, v.factor[0]));
      b = quantised(__fmul_rn(b, v.factor[1]));
      y = __fmaf_rn(a, v.scale[0], __fmul_rn(b, v.scale[1]));
    } else {
      if (v.half) {
        a = through_half(a, lost.before_add);
        b = through_half(b, wrong[1]);
      }
      y = __fadd_rn(a, b);
    }
    y = activate(v.activation, y);
    if (v.round_output) {
      static_cast<__half*>(out)[i] = __float2half_rn(through_half(y, lost.stored));
    } else {
      static_cast<float*>(out)[i] = y;
    }
  }
  const int32_t all[] = {wrong[0], wrong[1], lost.before_add, lost.stored};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (all[i]) atomicAdd(&counts[i], all[i]);
  }
}

bool is_aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0; }

}  // namespace
}  // namespace cuda

using namespace cuda;

void cuda_add(const CudaAddCall& call) {
  if (!call.count) return;
  const DeviceGuard guard(call.place.device);
  const cudaStream_t stream = cudaStream_t(call.place.stream);
  AddView v{call.a,
            call.b,
            {},
            {},
            call.precision == ElementType::kInt8,
            call.precision == ElementType::kFloat16,
            call.round_output,
            call.activation};
  if (v.int8) {
    const float amax[] = {float(call.amax0), float(call.amax1)};
    for (int i = 0; i < 2; ++i) {
      v.factor[i] = int8_factor(amax[i]);
      v.scale[i] = int8_scale(amax[i]);
    }
  }
  check(cudaMemsetAsync(call.counts, 0, 4 * sizeof(int32_t), stream), "clearing counts");
  sum_kernel<<<blocks_for(call.count, kThreads, kMostBlocks), kThreads, 0, stream>>>(
      v, call.count, call.counts, call.result);
  check_launch("adding");
  if (call.precision == ElementType::kFloat32 && !call.round_output) return;
  const std::vector<int32_t> found = read_back(call.counts, 4, stream);
  if (v.int8 && found[0]) fail_not_finite(call.layer + ": its first input", found[0]);
  if (v.int8 && found[1]) fail_not_finite(call.layer + ": its second input", found[1]);
  if (found[1]) fail_overflow(call.layer + " (its second input)", found[1]);
  if (found[2] || found[3]) fail_overflow(call.layer, std::max(found[2], found[3]));
}

void cuda_gather(const CudaPlace& place, const float* x, int64_t x_rows, int64_t channels, const int32_t* map,
                 int64_t rows, int64_t offsets, float* out) {
  const DeviceGuard guard(place.device);
  const cudaStream_t stream = cudaStream_t(place.stream);
  const int64_t values = (Size(rows) * offsets * channels).value();
  if (!values) return;
  if (channels % 4 == 0 && is_aligned(x) && is_aligned(out)) {
    launch_gather<float4>(x, x_rows, channels / 4, map, values / 4, out, stream);
  } else {
    launch_gather<float>(x, x_rows, channels, map, values, out, stream);
  }
}

}  // namespace scn
