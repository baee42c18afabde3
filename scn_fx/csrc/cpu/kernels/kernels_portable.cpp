// SPDX-License-Identifier: Apache-2.0
// Plain C++ for any processor: what the other tables are measured and tested against.
#include "cpu/kernels/vec16_portable-inl.h"
// after the vectors it is written in
#include "cpu/kernels/kernels-inl.h"

namespace scn {
namespace {

void gemm_int8(const GatherGemm& g, int64_t begin, int64_t end, int32_t* acc, void* scratch) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(int32_t));
  const TilePairs tile = list_pairs(g.map, begin, end, scratch);
  const int8_t* x = static_cast<const int8_t*>(g.x);
  const int32_t quads = g.in_channels / kInputQuad, blocks = g.out_channels / kOutputBlock;
  for (int32_t k = 0; k < g.map.offsets; ++k) {
    for (int32_t i = 0; i < tile.counts[k]; ++i) {
      const Pair& pair = tile.pairs[k * tile.room + i];
      const int8_t* source = x + int64_t(pair.input) * g.x_stride;
      for (int32_t block = 0; block < blocks; ++block) {
        const int8_t* w = static_cast<const int8_t*>(g.weight) + weight_at(g, k, block * kOutputBlock);
        int32_t* out = acc + int64_t(pair.row) * g.out_channels + block * kOutputBlock;
        for (int32_t quad = 0; quad < quads; ++quad, w += kInputQuad * kOutputBlock) {
          for (int32_t n = 0; n < kOutputBlock; ++n) {
            int32_t sum = 0;
            for (int32_t c = 0; c < kInputQuad; ++c)
              sum += int32_t(source[quad * kInputQuad + c]) * w[n * kInputQuad + c];
            out[n] += sum;
          }
        }
      }
    }
  }
}

template <bool kFused>
void gemm_float_rows(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void* scratch) {
  std::memset(acc, 0, size_t(end - begin) * size_t(g.out_channels) * sizeof(float));
  const TilePairs tile = list_pairs(g.map, begin, end, scratch);
  const float* x = static_cast<const float*>(g.x);
  float* const widened =
      reinterpret_cast<float*>(static_cast<char*>(scratch) + tile_list_bytes(end - begin, g.map.offsets));
  for (int32_t k = 0; k < g.map.offsets; ++k) {
    for (int32_t i = 0; i < tile.counts[k]; ++i) {
      const Pair& pair = tile.pairs[k * tile.room + i];
      const float* source = x + int64_t(pair.input) * g.x_stride;
      if (g.x_half) {
        const uint16_t* half = static_cast<const uint16_t*>(g.x) + int64_t(pair.input) * g.x_stride;
        for (int32_t c = 0; c < g.in_channels; ++c) widened[c] = half_to_float(half[c]);
        source = widened;
      }
      for (int32_t block = 0; block < g.out_channels; block += kOutputBlock) {
        const float* w = static_cast<const float*>(g.weight) + weight_at(g, k, block);
        float* out = acc + int64_t(pair.row) * g.out_channels + block;
        for (int32_t c = 0; c < g.in_channels; ++c, w += kOutputBlock) {
          for (int32_t n = 0; n < kOutputBlock; ++n) {
            out[n] = kFused ? __builtin_fmaf(source[c], w[n], out[n]) : source[c] * w[n] + out[n];
          }
        }
      }
    }
  }
}

void gemm_float(const GatherGemm& g, int64_t begin, int64_t end, float* acc, void* scratch, bool fused) {
  // Without the instruction, a fused multiply-add is a library call: exact, and slow.
  fused ? gemm_float_rows<true>(g, begin, end, acc, scratch)
        : gemm_float_rows<false>(g, begin, end, acc, scratch);
}

/// Loops over arrays in the first-level cache: without intrinsics there is no way to name registers.
int64_t float_loop(int64_t rounds) {
  float acc[64] = {};
  volatile float factor = 0.5f;
  const float x = factor;
  for (int64_t i = 0; i < rounds; ++i) {
    for (float& a : acc) a = a * x + x;
  }
  volatile float sink = acc[0];
  (void)sink;
  return rounds * 64 * 2;
}

int64_t int8_loop(int64_t rounds) {
  int32_t acc[64] = {};
  volatile int8_t factor = 3;
  const int32_t x = factor;
  for (int64_t i = 0; i < rounds; ++i) {
    for (int32_t& a : acc) a = a * x + x;
  }
  volatile int32_t sink = acc[0];
  (void)sink;
  return rounds * 64 * 2;
}

}  // namespace

const Kernels kPortableKernels = {"portable",      gemm_int8,        nullptr,     gemm_float,
                                  nullptr,         add_outer<false>, finish_rows, convert_from_half,
                                  convert_to_half, float_loop,       int8_loop};

}  // namespace scn
