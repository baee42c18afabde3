// SPDX-License-Identifier: Apache-2.0
#include "cuda/geometry.h"

#include <algorithm>

#include "cuda/check.h"
#include "cuda/lookup.cuh"

namespace scn::cuda {
namespace {

// Tables of launches travel as kernel parameters, of which every device takes 4 KiB.
constexpr int kMaxSets = 24, kMaxGrowths = 16, kMaxMaps = 14;

struct SetTable {
  int32_t count;
  SitesView set[kMaxSets];
};

struct GrowthTable {
  int32_t count;
  Growth growth[kMaxGrowths];
};

SetTable table_of(const std::vector<SitesView>& sets) {
  if (sets.size() > size_t(kMaxSets)) {
    fail(ErrorKind::kArgument, "The CUDA backend runs networks with up to ", kMaxSets, " sets of sites, this has ",
         sets.size(), ". Run it on the CPU.");
  }
  SetTable table{};
  table.count = int32_t(sets.size());
  std::copy(sets.begin(), sets.end(), table.set);
  return table;
}

__global__ void begin_kernel(DeviceFrame* frame, const DeviceFrame value, int32_t* status, int32_t entries) {
  if (threadIdx.x == 0) *frame = value;
  for (int32_t i = threadIdx.x; i < entries; i += blockDim.x) {
    const bool first = i == kFirstOutside || i == kFirstDuplicate || i == kFirstNonFinite;
    status[i] = first ? kNoRow : 0;
  }
}

// ---------------------------------------------------------------------------------------------------- marking

/// Sets bits of one word of a line; returns those that were not set before, and counts them.
__device__ __forceinline__ uint32_t set_bits(const SitesView& s, int32_t line, int32_t word, uint32_t bits) {
  uint32_t* const at = &s.words[int64_t(line) * s.words_per_line + word].bits;
  bits &= ~*reinterpret_cast<volatile uint32_t*>(at);  // most cells were found before: save the atomic
  if (!bits) return 0;
  bits &= ~atomicOr(at, bits);
  if (bits) {
    const int32_t fresh = __popc(bits);
    atomicAdd(&s.line_counts[line], fresh);
    atomicAdd(&s.group_counts[line / kLinesPerGroup], fresh);
  }
  return bits;
}

/// The output coordinate that an input coordinate reaches with offset k along one axis, or -1.
__device__ __forceinline__ int32_t output_coordinate(const GeometryView& g, int axis, int32_t in, int32_t k,
                                                     int32_t extent) {
  int32_t out;
  if (g.divides) {
    out = in * g.stride[axis] - g.padding[axis] + k * g.dilation[axis];
  } else {
    const int32_t scaled = in + g.padding[axis] - k * g.dilation[axis];
    out = scaled / g.stride[axis];
    if (scaled < 0 || out * g.stride[axis] != scaled) return -1;
  }
  return uint32_t(out) < uint32_t(extent) ? out : -1;
}

/// Marks what one cell reaches and calls visit(set, site) for each cell that is new.
template <typename Visit>
__device__ __forceinline__ void expand(const SetTable& sets, const GrowthTable& growths, int32_t set, const Site& site,
                                       const Visit& visit) {
  for (int32_t i = 0; i < growths.count; ++i) {
    const Growth& growth = growths.growth[i];
    if (growth.from != set) continue;
    const GeometryView& g = growth.geometry;
    const SitesView& to = sets.set[growth.to];
    for (int32_t kz = 0; kz < g.kernel[0]; ++kz) {
      const int32_t z = output_coordinate(g, 0, site.z, kz, to.shape[0]);
      if (z < 0) continue;
      for (int32_t ky = 0; ky < g.kernel[1]; ++ky) {
        const int32_t y = output_coordinate(g, 1, site.y, ky, to.shape[1]);
        if (y < 0) continue;
        const int32_t line = line_of(to, site.batch, z, y);
        int32_t kx = 0;
        while (kx < g.kernel[2]) {  // the cells of one word at a time
          int32_t word = -1;
          uint32_t bits = 0;
          for (; kx < g.kernel[2]; ++kx) {
            const int32_t x = output_coordinate(g, 2, site.x, kx, to.shape[2]);
            if (x < 0) continue;
            if (word >= 0 && x >> 5 != word) break;
            word = x >> 5;
            bits |= 1u << (x & 31);
          }
          if (word < 0) break;
          for (uint32_t fresh = set_bits(to, line, word, bits); fresh; fresh &= fresh - 1)
            visit(growth.to, Site{site.batch, z, y, word * 32 + __ffs(int32_t(fresh)) - 1});
        }
      }
    }
  }
}

constexpr int kMarkThreads = 256, kQueue = 2048;

/// Whoever marks a cell first also marks what it reaches in the next sets: a block keeps its new cells in a queue and
/// works on them wave by wave.
__global__ __launch_bounds__(kMarkThreads) void mark_kernel(const DeviceFrame* frame,
                                                            const __grid_constant__ SetTable sets,
                                                            const __grid_constant__ GrowthTable growths,
                                                            int32_t* status) {
  __shared__ int4 queue[kQueue];
  __shared__ int32_t tail;
  const DeviceFrame view = *frame;
  const SitesView& first = sets.set[0];
  // A cell that the queue cannot take is expanded at once, and what it reaches after it.
  const auto push = [&](int32_t set, const Site& site) {
    const int32_t at = atomicAdd(&tail, 1);
    if (at < kQueue) queue[at] = make_int4(site.batch * kMaxSets + set, site.z, site.y, site.x);
    return at < kQueue;
  };
  const auto expand_deep = [&](int32_t set, const Site& site) {
    // Cells wait in a ring of local memory; a full ring would lose cells, so each visit expands the deepest first.
    struct Entry {
      Site site;
      int32_t set, growth, offset;
    };
    Entry stack[kMaxSets];
    int32_t depth = 0;
    stack[0] = {site, set, 0, 0};
    while (depth >= 0) {
      Entry& top = stack[depth];
      if (top.growth == growths.count) {
        --depth;
        continue;
      }
      const Growth& growth = growths.growth[top.growth];
      const GeometryView& g = growth.geometry;
      if (growth.from != top.set || top.offset == g.volume) {
        ++top.growth;
        top.offset = 0;
        continue;
      }
      const int32_t k = top.offset++;
      const SitesView& to = sets.set[growth.to];
      const int32_t kx = k % g.kernel[2], rest = k / g.kernel[2], ky = rest % g.kernel[1], kz = rest / g.kernel[1];
      const int32_t z = output_coordinate(g, 0, top.site.z, kz, to.shape[0]);
      const int32_t y = output_coordinate(g, 1, top.site.y, ky, to.shape[1]);
      const int32_t x = output_coordinate(g, 2, top.site.x, kx, to.shape[2]);
      if ((z | y | x) < 0) continue;
      if (set_bits(to, line_of(to, top.site.batch, z, y), x >> 5, 1u << (x & 31))) {
        const Site reached{top.site.batch, z, y, x};
        ++depth;  // a set is made by one growth from an earlier set: no deeper than there are sets
        stack[depth] = {reached, growth.to, 0, 0};
      }
    }
  };
  for (int32_t start = blockIdx.x * kMarkThreads; start < view.sites; start += gridDim.x * kMarkThreads) {
    __syncthreads();
    if (threadIdx.x == 0) tail = 0;
    __syncthreads();
    const int32_t i = start + int32_t(threadIdx.x);
    if (i < view.sites) {
      const int4 row = reinterpret_cast<const int4*>(view.indices)[i];
      const Site s{row.x, row.y, row.z, row.w};
      const bool inside = uint32_t(s.batch) < uint32_t(view.batch) && uint32_t(s.z) < uint32_t(first.shape[0]) &&
                          uint32_t(s.y) < uint32_t(first.shape[1]) && uint32_t(s.x) < uint32_t(first.shape[2]);
      if (!inside) {
        atomicAdd(&status[kOutside], 1);
        atomicMin(&status[kFirstOutside], i);
      } else if (!set_bits(first, line_of(first, s.batch, s.z, s.y), s.x >> 5, 1u << (s.x & 31))) {
        atomicAdd(&status[kDuplicates], 1);
        atomicMin(&status[kFirstDuplicate], i);
      } else if (growths.count) {
        push(0, s);  // one per thread: always room
      }
    }
    __syncthreads();
    int32_t begin = 0, end = min(tail, kQueue);
    while (begin < end) {
      __syncthreads();
      for (int32_t at = begin + int32_t(threadIdx.x); at < end; at += kMarkThreads) {
        const int4 entry = queue[at];
        const Site site{entry.x / kMaxSets, entry.y, entry.z, entry.w};
        expand(sets, growths, entry.x % kMaxSets, site, [&](int32_t set, const Site& reached) {
          if (!push(set, reached)) expand_deep(set, reached);
        });
      }
      __syncthreads();
      begin = end;
      end = min(tail, kQueue);
    }
  }
}

// ---------------------------------------------------------------------------------------------------- ranking

constexpr int kRankThreads = 512, kLinesPerWarp = kLinesPerGroup / (kRankThreads / 32), kWordChunks = 2;

__device__ __forceinline__ int32_t warp_inclusive(int32_t v) {
  const int32_t lane = threadIdx.x & 31;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int32_t below = __shfl_up_sync(0xffffffffu, v, d);
    if (lane >= d) v += below;
  }
  return v;
}

struct GroupTable {
  int32_t first[kMaxSets + 1];  // block numbers
};

/// Ranks 32 words of a line (one per lane) whose first site has rank `start`; returns how many sites they hold.
__device__ __forceinline__ int32_t rank_words(const SitesView& s, int32_t line, int32_t word, uint32_t bits,
                                              int32_t start) {
  const int32_t own = __popc(bits), inclusive = warp_inclusive(own);
  int32_t rank = start + inclusive - own;
  if (bits) {
    s.words[int64_t(line) * s.words_per_line + word].base = rank;
    const int32_t y = line % s.shape[1], rest = line / s.shape[1], z = rest % s.shape[0], batch = rest / s.shape[0];
    for (uint32_t left = bits; left; left &= left - 1, ++rank) {
      if (rank < s.capacity)
        reinterpret_cast<int4*>(s.sites)[rank] = make_int4(batch, z, y, word * 32 + __ffs(int32_t(left)) - 1);
    }
  }
  return __shfl_sync(0xffffffffu, inclusive, 31);
}

/// A block ranks one group of lines.
__global__ __launch_bounds__(kRankThreads) void rank_kernel(const __grid_constant__ SetTable sets,
                                                            const __grid_constant__ GroupTable groups,
                                                            int32_t* status) {
  __shared__ int32_t sums[kRankThreads / 32];
  int32_t which = 0;
  while (int32_t(blockIdx.x) >= groups.first[which + 1]) ++which;
  const SitesView& s = sets.set[which];
  const int32_t group = int32_t(blockIdx.x) - groups.first[which];
  const int32_t last = groups.first[which + 1] - groups.first[which] - 1;
  const int32_t own = s.group_counts[group];
  if (!own && group != last) return;
  int32_t before = 0;
  for (int32_t i = threadIdx.x; i < group; i += kRankThreads) before += s.group_counts[i];
  before = __shfl_sync(0xffffffffu, warp_inclusive(before), 31);
  const int32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  if (lane == 0) sums[warp] = before;
  __syncthreads();
  before = 0;
#pragma unroll
  for (int w = 0; w < kRankThreads / 32; ++w) before += sums[w];
  if (group == last && threadIdx.x == 0) {
    status[kFound + which] = before + own;
    *s.count = min(before + own, s.capacity);
  }
  if (!own) return;

  const int32_t first_line = group * kLinesPerGroup;
  const int32_t low = first_line + lane < s.lines ? s.line_counts[first_line + lane] : 0;
  const int32_t high = first_line + 32 + lane < s.lines ? s.line_counts[first_line + 32 + lane] : 0;
  const int32_t low_inclusive = warp_inclusive(low);
  const int32_t high_inclusive = warp_inclusive(high) + __shfl_sync(0xffffffffu, low_inclusive, 31);
  const int32_t first_in_warp = warp * kLinesPerWarp;  // a warp's lines lie in one half of the group
  const int32_t counts = first_in_warp < 32 ? low : high;
  const int32_t starts = (first_in_warp < 32 ? low_inclusive - low : high_inclusive - high) + before;

  uint32_t bits[kLinesPerWarp][kWordChunks];
#pragma unroll
  for (int i = 0; i < kLinesPerWarp; ++i) {
    const int32_t count = __shfl_sync(0xffffffffu, counts, (first_in_warp + i) & 31);
#pragma unroll
    for (int c = 0; c < kWordChunks; ++c) {
      const int32_t word = c * 32 + lane;
      bits[i][c] = count && word < s.words_per_line
                       ? s.words[int64_t(first_line + first_in_warp + i) * s.words_per_line + word].bits
                       : 0;
    }
  }
#pragma unroll
  for (int i = 0; i < kLinesPerWarp; ++i) {
    const int32_t count = __shfl_sync(0xffffffffu, counts, (first_in_warp + i) & 31);
    int32_t start = __shfl_sync(0xffffffffu, starts, (first_in_warp + i) & 31);
    if (!count) continue;
    const int32_t line = first_line + first_in_warp + i;
#pragma unroll
    for (int c = 0; c < kWordChunks; ++c) {
      if (c * 32 < s.words_per_line) start += rank_words(s, line, c * 32 + lane, bits[i][c], start);
    }
    for (int32_t word = kWordChunks * 32; word < s.words_per_line; word += 32) {
      const bool exists = word + lane < s.words_per_line;
      const uint32_t more = exists ? s.words[int64_t(line) * s.words_per_line + word + lane].bits : 0;
      start += rank_words(s, line, word + lane, more, start);
    }
  }
}

// ---------------------------------------------------------------------------------------------------- kernel maps

struct MapTable {
  int32_t count;
  MapView map[kMaxMaps];
};

constexpr int kMapThreads = 128, kParts = kMapThreads / kTileRows;
constexpr int kBitmapWords = 1024;  // 32768 rows between a tile's first and last input rows, per plane of offsets
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
  __shared__ int32_t before[kBitmapWords];           // sites before each word
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

// ---------------------------------------------------------------------------------------------------- clearing

constexpr int kClearThreads = 256;

__global__ __launch_bounds__(kClearThreads) void clear_kernel(const __grid_constant__ SetTable sets,
                                                              const int32_t* status) {
  const int64_t first = int64_t(blockIdx.x) * kClearThreads + threadIdx.x, step = int64_t(gridDim.x) * kClearThreads;
  for (int32_t which = 0; which < sets.count; ++which) {
    const SitesView& s = sets.set[which];
    if (status[kFound + which] > s.capacity) {  // not every site is listed
      const int64_t words = int64_t(s.lines) * s.words_per_line;
      for (int64_t i = first; i < words; i += step) s.words[i] = RankWord{0, 0};
      for (int64_t i = first; i < s.lines; i += step) {
        s.line_counts[i] = 0;
        s.group_counts[i / kLinesPerGroup] = 0;
      }
      continue;
    }
    const int32_t count = *s.count;
    for (int64_t i = first; i < count; i += step) {
      const int4 at = reinterpret_cast<const int4*>(s.sites)[i];
      const int32_t line = line_of(s, at.x, at.y, at.z);
      s.words[int64_t(line) * s.words_per_line + (at.w >> 5)] = RankWord{0, 0};
      s.line_counts[line] = 0;
      s.group_counts[line / kLinesPerGroup] = 0;
    }
  }
}

int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "reading the device's limits");
  return count;
}

uint32_t blocks_for(int64_t items, int64_t threads, int64_t most) {
  return uint32_t(std::max<int64_t>(1, std::min(most, (items + threads - 1) / threads)));
}

}  // namespace

void begin_frame(DeviceFrame* frame, const DeviceFrame& value, int32_t* status, int32_t status_entries,
                 cudaStream_t stream) {
  begin_kernel<<<1, 128, 0, stream>>>(frame, value, status, status_entries);
  check_launch("begin");
}

void mark_sites(const DeviceFrame* frame, const std::vector<SitesView>& sets, const std::vector<Growth>& growths,
                int32_t* status, cudaStream_t stream) {
  if (growths.size() > size_t(kMaxGrowths)) {
    fail(ErrorKind::kArgument, "The CUDA backend runs networks with up to ", kMaxGrowths,
         " strided or transposed convolutions that make new sites, this has ", growths.size(), ". Run it on the CPU.");
  }
  GrowthTable table{};
  table.count = int32_t(growths.size());
  std::copy(growths.begin(), growths.end(), table.growth);
  const uint32_t blocks = blocks_for(sets[0].capacity, kMarkThreads, int64_t(multiprocessors()) * 8);
  mark_kernel<<<blocks, kMarkThreads, 0, stream>>>(frame, table_of(sets), table, status);
  check_launch("marking sites");
}

void rank_sites(const std::vector<SitesView>& sets, int32_t* status, cudaStream_t stream) {
  GroupTable groups{};
  for (size_t i = 0; i < sets.size(); ++i)
    groups.first[i + 1] = groups.first[i] + (sets[i].lines + kLinesPerGroup - 1) / kLinesPerGroup;
  rank_kernel<<<uint32_t(groups.first[sets.size()]), kRankThreads, 0, stream>>>(table_of(sets), groups, status);
  check_launch("ranking sites");
}

void build_maps(const std::vector<MapView>& maps, cudaStream_t stream) {
  for (size_t begin = 0; begin < maps.size(); begin += kMaxMaps) {
    MapTable table{};
    int64_t tiles = 0;
    int32_t volume = 0;
    for (size_t i = begin; i < std::min(maps.size(), begin + kMaxMaps); ++i) {
      table.map[table.count++] = maps[i];
      tiles += (maps[i].output.capacity + kTileRows - 1) / kTileRows;
      volume = std::max(volume, maps[i].geometry.volume);
    }
    const int32_t shared = volume * kTileRows * int32_t(sizeof(int32_t));
    if (shared > 32 * 1024) {
      check(cudaFuncSetAttribute(map_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
            "asking for the shared memory of a kernel map (its kernel may have too many offsets for this device)");
    }
    const uint32_t blocks = blocks_for(tiles, 1, int64_t(multiprocessors()) * 12);
    map_kernel<<<blocks, kMapThreads, size_t(shared), stream>>>(table);
    check_launch("kernel maps");
  }
}

void clear_sites(const std::vector<SitesView>& sets, const int32_t* status, cudaStream_t stream) {
  clear_kernel<<<uint32_t(multiprocessors() * 4), kClearThreads, 0, stream>>>(table_of(sets), status);
  check_launch("clearing sites");
}

}  // namespace scn::cuda
