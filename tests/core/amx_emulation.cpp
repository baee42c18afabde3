// SPDX-License-Identifier: Apache-2.0
// The AMX kernels with their tile instructions in plain C++, against the portable kernels, bit for bit:
// layers of all kinds of widths, offsets and neighbourhoods. Prints what differs; exit code 1 then.
#define SCN_FX_EMULATE_AMX
// the kernels themselves, compiled for this processor
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "core/parallel.h"
#include "cpu/kernels/kernels_amx.cpp"
#include "cpu/maps/kernel_map.h"

namespace {

struct Layer {
  int32_t in, out, offsets;
  int64_t rows;
  double density;  // of neighbours
};

/// Sums of tiles of up to 256 rows, as the engine calls the kernels, with a guard behind them.
std::vector<int32_t> sums_of(const scn::Kernels& kernels, const scn::GatherGemm& g, int64_t rows) {
  constexpr int64_t kTile = 256;
  constexpr int32_t kGuard = 0x7b7b7b7b;
  std::vector<int32_t> all;
  for (int64_t begin = 0; begin < rows; begin += kTile) {
    const int64_t end = begin + kTile < rows ? begin + kTile : rows;
    const int64_t room = (end - begin + scn::kAccRows - 1) / scn::kAccRows * scn::kAccRows * g.out_channels;
    std::vector<int32_t> acc(static_cast<size_t>(room + 1), kGuard);
    const int64_t bytes = scn::gemm_scratch_bytes(end - begin, g.map.offsets, g.in_channels);
    std::vector<char> scratch(static_cast<size_t>(bytes + 1), 0x37);
    kernels.blocks_int8(g, begin, end, acc.data(), scratch.data());
    if (acc.back() != kGuard || scratch.back() != 0x37) {
      std::printf("%s writes beyond its sums or its scratch\n", kernels.name);
      std::exit(1);
    }
    all.insert(all.end(), acc.begin(), acc.begin() + (end - begin) * g.out_channels);
  }
  return all;
}

bool agree(const Layer& layer, std::mt19937& random) {
  if (!scn::tiles_suit((layer.in + 3) / 4 * 4, layer.offsets)) return true;  // others multiply these
  constexpr int64_t kSources = 50;
  const auto byte = [&] { return int8_t(int(random() % 256) - 128); };
  const int64_t stride = (layer.in + 15) / 16 * 16;
  const int32_t padded_in = (layer.in + 3) / 4 * 4, padded_out = (layer.out + 15) / 16 * 16;
  std::vector<int8_t> x(size_t(kSources * stride), 0);
  for (int64_t row = 0; row < kSources; ++row) {
    for (int32_t c = 0; c < layer.in; ++c) x[size_t(row * stride + c)] = byte();
  }
  std::vector<int8_t> weight(size_t(layer.out) * size_t(layer.offsets) * size_t(layer.in));
  for (int8_t& w : weight) w = byte();
  std::vector<int8_t> packed(size_t(scn::packed_int8_bytes(layer.out, layer.offsets, layer.in)), 0x11);
  scn::pack_weight_int8(weight.data(), layer.out, layer.offsets, layer.in, packed.data());
  std::vector<int32_t> map(size_t(layer.rows * layer.offsets));
  for (int32_t& entry : map) {
    const bool there = double(random() % 1000) < layer.density * 1000;
    entry = there ? int32_t(random() % kSources) : -1;
  }
  scn::ThreadPool pool(1);
  scn::KernelMap pairs;
  pairs.assign(map.data(), layer.rows, layer.offsets, kSources, "layer", pool);
  const scn::GatherGemm g{pairs.view(), x.data(), stride,  padded_in, packed.data(), padded_out,
                          false,        nullptr,  nullptr, nullptr,   false};
  if (sums_of(scn::kAmxKernels, g, layer.rows) == sums_of(scn::kPortableKernels, g, layer.rows)) return true;
  std::printf("%d to %d channels, %d offsets, %lld rows, density %g: other sums\n", layer.in, layer.out,
              layer.offsets, static_cast<long long>(layer.rows), layer.density);
  return false;
}

}  // namespace

int main() {
  std::mt19937 random(1);
  int wrong = 0, layers = 0;
  for (const int32_t in : {1, 16, 20, 32, 48, 64, 80, 128, 144, 256}) {
    for (const int32_t out : {5, 16, 32, 48, 128}) {
      for (const int32_t offsets : {1, 3, 8, 15, 16, 17, 27, 75}) {
        const int64_t rows = int64_t(random() % 200) + 1;
        const double density = double(random() % 5) / 4;
        wrong += !agree({in, out, offsets, rows, density}, random);
        ++layers;
      }
    }
  }
  for (const int64_t rows : {1, 15, 16, 17, 31, 32, 33, 48, 127, 128, 129}) {
    for (const double density : {0.0, 0.01, 0.5, 1.0}) {
      wrong += !agree({32, 16, 27, rows, density}, random);
      wrong += !agree({128, 128, 27, rows, density}, random);
      layers += 2;
    }
  }
  std::printf("%d layers, %d wrong\n", layers, wrong);
  return wrong != 0;
}
