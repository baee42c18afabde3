// SPDX-License-Identifier: Apache-2.0
// Weights on the device: as they are given, and as kernels read them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/convolution/config.h"

namespace scn::cuda {

/// As the kernel of a config reads them; whoever has the memory fills in the addresses.
struct WeightsView {
  char* packed = nullptr;                   // [config.packed_bytes]
  float *scale = nullptr, *bias = nullptr;  // [config.padded]
};

/// A layer's weights on the device as it is given: float32, of any values.
struct RawWeights {
  const float* weight;  // [out, offsets, in]
  const float* bias;    // [out] or null
  float input_amax;
  const float* weight_amax;  // [out], int8 only
  int32_t* beyond;           // two counts, of weights and biases that float16 does not have; null: checked
};

/// Rounds, quantises and packs as the config's kernel wants it.
void pack_weights(const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                  cudaStream_t stream);

// The orders that kernels read weights in; for the registry.

/// That of mma.sync's lanes, output channels as its rows.
void pack_fragments(const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                    cudaStream_t stream);
/// That of wgmma's columns in shared memory.
void pack_columns(const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                  cudaStream_t stream);
/// The same for pairs of blocks: of each block of channels, what one block multiplies, then the other.
void pack_column_pairs(const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                       cudaStream_t stream);
/// float32 [offset, in channel, padded], as chains of sums read them.
void pack_rows(const ConvConfig& config, const RawWeights& from, const WeightsView& to, cudaStream_t stream);

}  // namespace scn::cuda
