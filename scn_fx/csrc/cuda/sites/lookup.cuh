// SPDX-License-Identifier: Apache-2.0
// Looking up a neighbour in the bitmap of its set.
#pragma once

#include "cuda/views.h"

namespace scn::cuda {

/// The input coordinate that offset `k` of output coordinate `out` reads along one axis, or -1.
__device__ __forceinline__ int32_t input_coordinate(const GeometryView& g, int axis, int32_t out, int32_t k,
                                                    int32_t extent) {
  int32_t in;
  if (g.divides) {
    const int32_t scaled = out + g.padding[axis] - k * g.dilation[axis];
    in = scaled / g.stride[axis];
    if (scaled < 0 || in * g.stride[axis] != scaled) return -1;
  } else {
    in = out * g.stride[axis] - g.padding[axis] + k * g.dilation[axis];
  }
  return uint32_t(in) < uint32_t(extent) ? in : -1;
}

__device__ __forceinline__ int32_t line_of(const SitesView& s, int32_t batch, int32_t z, int32_t y) {
  return (batch * s.shape[0] + z) * s.shape[1] + y;
}

/// Whether a site of the caller's frame lies in the grid of set 0.
__device__ __forceinline__ bool inside(const DeviceFrame& frame, const SitesView& s, const Site& site) {
  return uint32_t(site.batch) < uint32_t(frame.batch) && uint32_t(site.z) < uint32_t(s.shape[0]) &&
         uint32_t(site.y) < uint32_t(s.shape[1]) && uint32_t(site.x) < uint32_t(s.shape[2]);
}

/// Row of the site at x, in the word of its cell; or -1.
__device__ __forceinline__ int32_t row_in_word(const RankWord& word, int32_t x) {
  const uint32_t bit = 1u << (x & 31);
  return word.bits & bit ? word.base + __popc(word.bits & (bit - 1)) : -1;
}

/// Row of the site at x on a line, or -1.
__device__ __forceinline__ int32_t row_at(const SitesView& s, int32_t line, int32_t x) {
  return row_in_word(s.words[int64_t(line) * s.words_per_line + (x >> 5)], x);
}

/// Input row that offset `k` (x fastest) of the output site reads, or -1.
__device__ __forceinline__ int32_t find_neighbour(const MapView& m, const Site& site, int32_t k) {
  const GeometryView& g = m.geometry;
  const int32_t kx = k % g.kernel[2], rest = k / g.kernel[2], ky = rest % g.kernel[1],
                kz = rest / g.kernel[1];
  const int32_t z = input_coordinate(g, 0, site.z, kz, m.input.shape[0]);
  const int32_t y = input_coordinate(g, 1, site.y, ky, m.input.shape[1]);
  const int32_t x = input_coordinate(g, 2, site.x, kx, m.input.shape[2]);
  if ((z | y | x) < 0) return -1;
  const int32_t row = row_at(m.input, line_of(m.input, site.batch, z, y), x);
  return row < *m.input.count ? row : -1;
}

/// Input row that offset `k` of the row at `place` (row_place) of a tile reads, from the tile's record; or
/// -1.
__device__ __forceinline__ int32_t mapped_row(const MapView& m, const char* record, int32_t k,
                                              int32_t place) {
  const int32_t base = reinterpret_cast<const int32_t*>(record + bases_at(m.geometry.volume))[k];
  if (base < 0) return m.far[~base * kTileRows + place];
  const int32_t distance = reinterpret_cast<const uint16_t*>(record)[k * kTileRows + place];
  return distance == kNoNeighbour ? -1 : base + distance;
}

}  // namespace scn::cuda
