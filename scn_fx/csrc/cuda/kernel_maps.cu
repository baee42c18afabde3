// SPDX-License-Identifier: Apache-2.0
// Kernel maps, tile by tile.
#include "cuda/geometry_common.cuh"

namespace scn::cuda {
namespace {

constexpr int kMaxMaps = 14;

struct MapTable {
  int32_t count;
  MapView map[kMaxMaps];
};

constexpr int kMapThreads = 128, kParts = kMapThreads / kTileRows;
constexpr int kBitmapWords =
    1024;  // 32768 rows between a tile's first and last input rows, per plane of offsets
constexpr int kMaxPlanes = 32;

/// Rows of the input set that the offsets of one run along x read; `found(k, row)` is called for each offset.
template <typename Found>
__device__ __forceinline__ void neighbours(const MapView& m, const Site& site, bool present, int32_t part,
                                           const Found& found) {
  const GeometryView& g = m.geometry;
  const SitesView& in = m.input;
  const int32_t runs = g.kernel[0] * g.kernel[1], width = g.kernel[2];
  const int32_t rows = *in.count;
  if (g.divides || g.dilation[2] != 1 || width > 32) {
    for (int32_t k = part; k < g.volume; k += kParts) found(k, present ? find_neighbour(m, site, k) : -1);
    return;
  }
  constexpr int kBatch = 5;  // runs whose words are loaded together
  const int32_t x0 = site.x * g.stride[2] - g.padding[2];
  const int32_t low = max(x0, 0), high = min(x0 + width, in.shape[2]) - 1;
  for (int32_t first = part * kBatch; first < runs; first += kParts * kBatch) {
    RankWord left[kBatch], right[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      left[i] = right[i] = RankWord{0, 0};
      const int32_t run = first + i;
      if (run >= runs || !present || low > high) continue;
      const int32_t z = input_coordinate(g, 0, site.z, run / g.kernel[1], in.shape[0]);
      const int32_t y = input_coordinate(g, 1, site.y, run % g.kernel[1], in.shape[1]);
      if ((z | y) < 0) continue;
      const RankWord* const line = in.words + int64_t(line_of(in, site.batch, z, y)) * in.words_per_line;
      left[i] = line[low >> 5];
      if (low >> 5 != high >> 5) right[i] = line[high >> 5];
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int32_t run = first + i;
      if (run >= runs) break;
      for (int32_t kx = 0; kx < width; ++kx) {
        const int32_t x = x0 + kx;
        const RankWord& word = x >> 5 == low >> 5 ? left[i] : right[i];
        const uint32_t bit = 1u << (x & 31);
        int32_t row = -1;
        if (x >= low && x <= high && (word.bits & bit)) row = word.base + __popc(word.bits & (bit - 1));
        found(run * width + kx, row < rows ? row : -1);
      }
    }
  }
}

__global__ __launch_bounds__(kMapThreads) void map_kernel(const __grid_constant__ MapTable maps) {
  extern __shared__ int32_t entries[];  // [volume, kTileRows] input rows or -1
  __shared__ uint32_t bitmap[kBitmapWords];
  __shared__ int32_t before[kBitmapWords];  // sites before each word
  __shared__ int32_t lowest[kMaxPlanes], highest[kMaxPlanes];
  __shared__ int32_t segment_word[kMaxPlanes], segment_row[kMaxPlanes], plane_segment[kMaxPlanes];
  __shared__ int32_t words, segments, length, first_tile[kMaxMaps + 1], sums[kMapThreads / 32];

  const int32_t thread = threadIdx.x, lane = thread & 31;
  if (thread == 0) {
    first_tile[0] = 0;
    for (int32_t i = 0; i < maps.count; ++i)
      first_tile[i + 1] = first_tile[i] + (*maps.map[i].output.count + kTileRows - 1) / kTileRows;
  }
  __syncthreads();
  const int32_t tiles = first_tile[maps.count];
  for (int32_t number = blockIdx.x; number < tiles; number += gridDim.x) {
    int32_t which = 0;
    while (number >= first_tile[which + 1]) ++which;
    const MapView& m = maps.map[which];
    const int32_t tile = number - first_tile[which];
    const int32_t volume = m.geometry.volume, planes = min(m.geometry.kernel[0], kMaxPlanes);
    const int32_t per_plane = m.geometry.kernel[1] * m.geometry.kernel[2];
    const int32_t in_tile = thread % kTileRows, out = tile * kTileRows + in_tile;
    const bool present = out < *m.output.count;

    __syncthreads();  // the tile before is done with shared memory
    if (thread < planes) {
      lowest[thread] = kNoRow;
      highest[thread] = -1;
    }
    __syncthreads();
    const int4 at = present ? reinterpret_cast<const int4*>(m.output.sites)[out] : make_int4(0, 0, 0, 0);
    int32_t plane = -1, low = kNoRow, high = -1;
    const auto flush = [&] {
      if (high >= 0) {
        atomicMin(&lowest[plane], low);
        atomicMax(&highest[plane], high);
      }
      low = kNoRow;
      high = -1;
    };
    neighbours(m, Site{at.x, at.y, at.z, at.w}, present, thread / kTileRows, [&](int32_t k, int32_t row) {
      entries[k * kTileRows + in_tile] = row;
      if (row < 0) return;
      const int32_t in_plane = min(k / per_plane, kMaxPlanes - 1);
      if (in_plane != plane) {
        flush();
        plane = in_plane;
      }
      low = min(low, row);
      high = max(high, row);
    });
    flush();
    __syncthreads();

    if (thread == 0) {  // planes in the order of their rows, overlapping ones together, each on a whole word
      int32_t order[kMaxPlanes];
      int32_t used = 0;
      for (int32_t p = 0; p < planes; ++p) {
        if (highest[p] < 0) continue;
        int32_t i = used++;
        for (; i > 0 && lowest[order[i - 1]] > lowest[p]; --i) order[i] = order[i - 1];
        order[i] = p;
      }
      segments = 0;
      int32_t total = 0, end = -1;
      for (int32_t i = 0; i < used; ++i) {
        const int32_t p = order[i];
        if (segments == 0 || lowest[p] > end) {
          if (segments) total += (end - segment_row[segments - 1]) / 32 + 1;
          segment_row[segments] = lowest[p];
          segment_word[segments] = total;
          ++segments;
          end = highest[p];
        } else {
          end = max(end, highest[p]);
        }
        plane_segment[p] = segments - 1;
      }
      if (segments) total += (end - segment_row[segments - 1]) / 32 + 1;
      words = total;
    }
    __syncthreads();
    if (words > kBitmapWords) {  // uniform: all threads read the same word
      if (thread == 0) m.list_length[tile] = kWide;
      continue;
    }
    for (int32_t i = thread; i < words; i += kMapThreads) bitmap[i] = 0;
    __syncthreads();
    const auto bit_of = [&](int32_t i, int32_t row) {
      const int32_t segment = plane_segment[min(i / kTileRows / per_plane, kMaxPlanes - 1)];
      return segment_word[segment] * 32 + row - segment_row[segment];
    };
    for (int32_t i = thread; i < volume * kTileRows; i += kMapThreads) {
      const int32_t row = entries[i];
      if (row < 0) continue;
      const int32_t bit = bit_of(i, row);
      atomicOr(&bitmap[bit >> 5], 1u << (bit & 31));
    }
    __syncthreads();
    const int32_t per_thread = (words + kMapThreads - 1) / kMapThreads;
    const int32_t word_begin = thread * per_thread, word_end = min(word_begin + per_thread, words);
    int32_t own = 0;
    for (int32_t w = word_begin; w < word_end; ++w) own += __popc(bitmap[w]);
    const int32_t inclusive = warp_inclusive(own);
    if (lane == 31) sums[thread >> 5] = inclusive;
    __syncthreads();
    int32_t position = inclusive - own;
    for (int32_t w = 0; w < thread >> 5; ++w) position += sums[w];
    if (thread == kMapThreads - 1) length = position + own;
    for (int32_t w = word_begin; w < word_end; ++w) {
      before[w] = position;
      position += __popc(bitmap[w]);
    }
    __syncthreads();
    if (length > m.list_capacity) {
      if (thread == 0) m.list_length[tile] = kWide;
      continue;
    }
    if (thread == 0) m.list_length[tile] = length;
    int32_t* const list = m.list + int64_t(tile) * m.list_capacity;
    for (int32_t w = word_begin; w < word_end; ++w) {
      int32_t segment = segments - 1;
      while (segment_word[segment] > w) --segment;
      const int32_t row = segment_row[segment] + (w - segment_word[segment]) * 32;
      int32_t to = before[w];
      for (uint32_t left = bitmap[w]; left; left &= left - 1) list[to++] = row + __ffs(int32_t(left)) - 1;
    }
    uint16_t* const local = m.local + int64_t(tile) * volume * kTileRows;
    for (int32_t i = thread; i < volume * kTileRows; i += kMapThreads) {
      const int32_t row = entries[i];
      uint16_t value = 0;
      if (row >= 0) {
        const int32_t bit = bit_of(i, row);
        value = uint16_t(1 + before[bit >> 5] + __popc(bitmap[bit >> 5] & ((1u << (bit & 31)) - 1)));
      }
      local[i] = value;
    }
  }
}

// The usual kernels (3 x 3 x 3 and a few more, not transposed, no dilation along x) take a shorter way: a
// thread has one output row and all its runs along x. The rows that a run finds are consecutive, so a run is
// its first row and a mask.

constexpr int kRunThreads = kTileRows, kRunWarps = kRunThreads / 32;
constexpr int kFlags = 4 * kBitmapWords;  // rows that can be flagged in bytes of the bitmap's memory

struct RunTable {
  int32_t count;
  int32_t shape[kMaxMaps];  // run_shape()
  MapView map[kMaxMaps];
};

/// Which of the shapes below a map has, -1 for others.
int32_t run_shape(const GeometryView& g) {
  static constexpr int32_t kShapes[][3] = {{3, 3, 3}, {3, 1, 1}, {1, 3, 3}, {2, 2, 2}};
  if (g.divides || (g.dilation[2] != 1 && g.kernel[2] != 1)) return -1;
  for (int32_t i = 0; i < 4; ++i) {
    if (g.kernel[0] == kShapes[i][0] && g.kernel[1] == kShapes[i][1] && g.kernel[2] == kShapes[i][2])
      return i;
  }
  return -1;
}

struct RunShared {
  uint4 flags[kFlags / 16];   // zero between tiles; a byte per row, or a bit per row where rows are far apart
  uint2 table[kBitmapWords];  // bits of 32 rows, listed rows before them
  int32_t low[3][kRunWarps], high[3][kRunWarps];  // rows of a plane that one warp reads
  int32_t length;
  int32_t count[kMaxMaps], first_tile[kMaxMaps + 1];
};

__device__ __forceinline__ int32_t warp_min(int32_t v) {
#if __CUDA_ARCH__ >= 800
  return __reduce_min_sync(0xffffffffu, v);
#else
#pragma unroll
  for (int d = 16; d; d /= 2) v = min(v, __shfl_xor_sync(0xffffffffu, v, d));
  return v;
#endif
}

__device__ __forceinline__ int32_t warp_max(int32_t v) { return ~warp_min(~v); }

template <int KX>
__device__ __forceinline__ int32_t bits_in(uint32_t mask) {
  if (KX == 1) return int32_t(mask);
  if (KX > 3) return __popc(mask);
  return int32_t(0xe994u >> (2 * mask) & 3u);  // popc is slow
}

template <int KZ, int KY, int KX>
__device__ __forceinline__ void map_runs(const MapView& m, int32_t tile, int32_t count, RunShared& shared) {
  constexpr int kRuns = KZ * KY;
  constexpr int32_t kNoWord = 1 << 28;
  const GeometryView& g = m.geometry;
  const SitesView& in = m.input;
  const int32_t thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int32_t out = tile * kTileRows + thread;
  const bool present = out < count;
  const int32_t rows = *in.count;

  int32_t first[kRuns];
  uint32_t mask[kRuns];
  {
    const int4 at =
        present ? __ldg(reinterpret_cast<const int4*>(m.output.sites) + out) : make_int4(0, 0, 0, 0);
    const int32_t z0 = at.y * g.stride[0] - g.padding[0], y0 = at.z * g.stride[1] - g.padding[1];
    const int32_t x0 = at.w * g.stride[2] - g.padding[2];
    const int32_t low = max(x0, 0), high = min(x0 + KX, in.shape[2]) - 1;
    const bool inside = present && low <= high, both = low >> 5 != high >> 5;
    const uint2* const words = reinterpret_cast<const uint2*>(in.words);
    const int32_t word = ((at.x * in.shape[0] + z0) * in.shape[1] + y0) * in.words_per_line + (low >> 5);
    const int32_t y_step = g.dilation[1] * in.words_per_line;
    const int32_t z_step = g.dilation[0] * in.shape[1] * in.words_per_line;
    uint2 left[kRuns], right[kRuns];
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const bool exists = inside && uint32_t(z0 + r / KY * g.dilation[0]) < uint32_t(in.shape[0]) &&
                          uint32_t(y0 + r % KY * g.dilation[1]) < uint32_t(in.shape[1]);
      const uint2* const from = words + (word + r / KY * z_step + r % KY * y_step);
      left[r] = right[r] = make_uint2(0, 0);
      if (exists) left[r] = __ldg(from);
      if (KX > 1 && exists && both) right[r] = __ldg(from + 1);
    }
    const uint32_t wanted = (2u << (high - low)) - 1;
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const uint32_t above = left[r].x >> (low & 31);
      const uint32_t before = left[r].x & ((1u << (low & 31)) - 1);
      mask[r] = (__funnelshift_r(left[r].x, right[r].x, low & 31) & wanted) << (low - x0);
      first[r] = int32_t(above ? left[r].y + __popc(before) : right[r].y);
      if (!inside) mask[r] = 0;
    }
  }
  if (rows == in.capacity) {  // perhaps not all sites are listed
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      while (mask[r] && first[r] + __popc(mask[r]) > rows) mask[r] ^= 1u << (31 - __clz(int32_t(mask[r])));
    }
  }
#pragma unroll
  for (int p = 0; p < KZ; ++p) {
    int32_t low = kNoRow, high = -1;
#pragma unroll
    for (int r = p * KY; r < p * KY + KY; ++r) {
      if (mask[r]) {
        low = min(low, first[r]);
        high = max(high, first[r] + bits_in<KX>(mask[r]) - 1);
      }
    }
    low = warp_min(low);
    high = warp_max(high);
    if (lane == 0) {
      shared.low[p][warp] = low;
      shared.high[p][warp] = high;
    }
  }
  __syncthreads();

  // The planes' rows in whole words of 32, ascending and overlapping ones once: word w of plane p becomes w +
  // shift[p].
  int32_t begin[3], end[3], plane_begin[KZ];
#pragma unroll
  for (int p = 0; p < 3; ++p) {
    begin[p] = end[p] = kNoWord;
    if (p >= KZ) continue;
    const int32_t low = min(shared.low[p][0], shared.low[p][1]),
                  high = max(shared.high[p][0], shared.high[p][1]);
    if (high >= 0) {
      begin[p] = low >> 5;
      end[p] = (high >> 5) + 1;
    }
    plane_begin[p] = begin[p];
  }
  const auto order = [&](int a, int b) {
    if (begin[a] <= begin[b]) return;
    const int32_t other_begin = begin[a], other_end = end[a];
    begin[a] = begin[b];
    end[a] = end[b];
    begin[b] = other_begin;
    end[b] = other_end;
  };
  if (KZ > 1) order(0, 1);
  if (KZ > 2) {
    order(1, 2);
    order(0, 1);
  }
  const int32_t start1 = min(begin[1], end[0]) - begin[0], end01 = max(end[0], end[1]);
  const int32_t words01 = start1 + end01 - begin[1];
  const int32_t start2 = words01 - max(0, end01 - begin[2]);
  const int32_t words = start2 + max(end01, end[2]) - begin[2];
  const int32_t shift0 = -begin[0], shift1 = start1 - begin[1], shift2 = start2 - begin[2];
  int32_t shift[KZ];
#pragma unroll
  for (int p = 0; p < KZ; ++p) {
    const int32_t b = plane_begin[p];
    shift[p] = b == begin[0] ? shift0 : b == begin[1] ? shift1 : shift2;
  }
  if (words > kBitmapWords) {
    if (thread == 0) m.list_length[tile] = kWide;
    __syncthreads();
    return;
  }

  const bool bytes = words * 32 <= kFlags;
  if (bytes) {  // neighbouring threads store to neighbouring bytes: no conflicts, no atomics
    uint8_t* const flags = reinterpret_cast<uint8_t*>(shared.flags);
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const int32_t found = bits_in<KX>(mask[r]), at = shift[r / KY] * 32 + first[r];
#pragma unroll
      for (int i = 0; i < KX; ++i) {
        if (i < found) flags[at + i] = 1;
      }
    }
  } else {
    uint32_t* const bitmap = reinterpret_cast<uint32_t*>(shared.flags);
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      if (!mask[r]) continue;
      const uint32_t found = (1u << __popc(mask[r])) - 1;
      const int32_t at = shift[r / KY] + (first[r] >> 5);
      const uint32_t over = __funnelshift_l(found, 0, first[r] & 31);
      atomicOr(&bitmap[at], found << (first[r] & 31));
      if (over) atomicOr(&bitmap[at + 1], over);
    }
  }
  __syncthreads();
  if (warp == 0) {
    int32_t total = 0;
    for (int32_t base = 0; base < words; base += 32) {
      const int32_t w = base + lane;
      uint32_t bits = 0;
      if (w < words && bytes) {
        uint4* const at = &shared.flags[2 * w];
        const uint4 a = at[0], b = at[1];
        at[0] = at[1] = make_uint4(0, 0, 0, 0);
        const uint32_t quads[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
        for (int q = 0; q < 8; ++q)  // the four flags meet in the upper byte
          bits |= quads[q] * 0x01020408u >> 24 << (4 * q);
      } else if (w < words) {
        uint32_t* const at = reinterpret_cast<uint32_t*>(shared.flags) + w;
        bits = *at;
        *at = 0;
      }
      const int32_t own = __popc(bits), inclusive = warp_inclusive(own);
      if (w < words) shared.table[w] = make_uint2(bits, uint32_t(total + inclusive - own));
      total += __shfl_sync(0xffffffffu, inclusive, 31);
    }
    if (lane == 0) {
      shared.length = total;
      m.list_length[tile] = total > m.list_capacity ? kWide : total;
    }
  }
  __syncthreads();
  if (shared.length > m.list_capacity) return;

  uint16_t* local = m.local + int64_t(tile) * (kRuns * KX * kTileRows) + thread;
#pragma unroll
  for (int r = 0; r < kRuns; ++r) {
    uint2 entry = make_uint2(0, 0);
    if (mask[r]) entry = shared.table[shift[r / KY] + (first[r] >> 5)];
    uint32_t position = entry.y + __popc(entry.x & ((1u << (first[r] & 31)) - 1));
#pragma unroll
    for (int kx = 0; kx < KX; ++kx, local += kTileRows) {
      const bool found = mask[r] >> kx & 1;
      position += found;
      *local = uint16_t(found ? position : 0);
    }
  }
  int32_t* const list = m.list + int64_t(tile) * m.list_capacity;
  for (int32_t w = warp; w < words; w += kRunWarps) {
    const uint2 entry = shared.table[w];
    const int32_t row = (w - (w >= start2 ? shift2 : w >= start1 ? shift1 : shift0)) * 32 + lane;
    if (entry.x >> lane & 1) list[entry.y + __popc(entry.x & ((1u << lane) - 1))] = row;
  }
}

__global__ __launch_bounds__(kRunThreads) void map_runs_kernel(const __grid_constant__ RunTable maps) {
  __shared__ RunShared shared;
  const int32_t thread = threadIdx.x;
  for (int32_t i = thread; i < kFlags / 16; i += kRunThreads) shared.flags[i] = make_uint4(0, 0, 0, 0);
  if (thread < 32) {
    const int32_t count = thread < maps.count ? *maps.map[thread].output.count : 0;
    const int32_t tiles = warp_inclusive((count + kTileRows - 1) / kTileRows);
    if (thread < kMaxMaps) {
      shared.count[thread] = count;
      shared.first_tile[thread + 1] = tiles;
    }
    if (thread == 0) shared.first_tile[0] = 0;
  }
  __syncthreads();
  const int32_t tiles = shared.first_tile[maps.count];
  int32_t which = 0;
  for (int32_t number = blockIdx.x; number < tiles; number += gridDim.x) {
    while (number >= shared.first_tile[which + 1]) ++which;
    const MapView& m = maps.map[which];
    const int32_t tile = number - shared.first_tile[which], count = shared.count[which];
    switch (maps.shape[which]) {
      case 0:
        map_runs<3, 3, 3>(m, tile, count, shared);
        break;
      case 1:
        map_runs<3, 1, 1>(m, tile, count, shared);
        break;
      case 2:
        map_runs<1, 3, 3>(m, tile, count, shared);
        break;
      default:
        map_runs<2, 2, 2>(m, tile, count, shared);
        break;
    }
  }
}

}  // namespace

void build_maps(const std::vector<MapView>& maps, cudaStream_t stream) {
  MapTable table{};
  RunTable runs{};
  int64_t tiles = 0, run_tiles = 0;
  int32_t volume = 0;
  const auto launch = [&] {
    if (table.count) {
      const int32_t shared = volume * kTileRows * int32_t(sizeof(int32_t));
      if (shared > 32 * 1024) {
        check(cudaFuncSetAttribute(map_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
              "asking for the shared memory of a kernel map (its kernel may have too many offsets for this "
              "device)");
      }
      const uint32_t blocks = blocks_for(tiles, 1, int64_t(multiprocessors()) * 12);
      map_kernel<<<blocks, kMapThreads, size_t(shared), stream>>>(table);
      check_launch("kernel maps");
    }
    if (runs.count) {
      const uint32_t blocks = blocks_for(run_tiles, 1, int64_t(multiprocessors()) * 16);
      map_runs_kernel<<<blocks, kRunThreads, 0, stream>>>(runs);
      check_launch("kernel maps");
    }
    table = {};
    runs = {};
    tiles = run_tiles = 0;
    volume = 0;
  };
  for (const MapView& map : maps) {
    const int64_t own = (map.output.capacity + kTileRows - 1) / kTileRows;
    const int32_t shape = run_shape(map.geometry);
    if (shape < 0) {
      table.map[table.count++] = map;
      tiles += own;
      volume = std::max(volume, map.geometry.volume);
    } else {
      runs.shape[runs.count] = shape;
      runs.map[runs.count++] = map;
      run_tiles += own;
    }
    if (table.count == kMaxMaps || runs.count == kMaxMaps) launch();
  }
  launch();
}

}  // namespace scn::cuda
