// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda/check.h"
#include "cuda/geometry.h"
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
    fail(ErrorKind::kArgument, "The CUDA backend runs networks with up to ", kMaxSets,
         " sets of sites, this has ", sets.size(), ". Run it on the CPU.");
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

// ----------------------------------------------------------------------------------------------------
// marking

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
__device__ __forceinline__ void expand(const SetTable& sets, const GrowthTable& growths, int32_t set,
                                       const Site& site, const Visit& visit) {
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

/// Whoever marks a cell first also marks what it reaches in the next sets: a block keeps its new cells in a
/// queue and works on them wave by wave.
__global__ __launch_bounds__(kMarkThreads) void mark_kernel(const __grid_constant__ SetTable sets,
                                                            const __grid_constant__ GrowthTable growths) {
  __shared__ int4 queue[kQueue];
  __shared__ int32_t tail;
  const SitesView& first = sets.set[0];
  const int32_t sites = *first.count;
  // A cell that the queue cannot take is expanded at once, and what it reaches after it.
  const auto push = [&](int32_t set, const Site& site) {
    const int32_t at = atomicAdd(&tail, 1);
    if (at < kQueue) queue[at] = make_int4(site.batch * kMaxSets + set, site.z, site.y, site.x);
    return at < kQueue;
  };
  const auto expand_deep = [&](int32_t set, const Site& site) {
    // Cells wait in a ring of local memory; a full ring would lose cells, so each visit expands the deepest
    // first.
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
      const int32_t kx = k % g.kernel[2], rest = k / g.kernel[2], ky = rest % g.kernel[1],
                    kz = rest / g.kernel[1];
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
  for (int32_t start = int32_t(blockIdx.x) * kMarkThreads; start < sites;
       start += int32_t(gridDim.x) * kMarkThreads) {
    __syncthreads();
    if (threadIdx.x == 0) tail = 0;
    __syncthreads();
    const int32_t i = start + int32_t(threadIdx.x);
    if (i < sites) {
      const int4 row = reinterpret_cast<const int4*>(first.sites)[i];
      push(0, Site{row.x, row.y, row.z, row.w});  // one per thread: always room
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

// Most pyramids are a chain of strided convolutions whose boxes stay small: what a cell reaches in any later
// set is a box of two lines by two lines or less. Then one thread marks all sets for its cell, without a
// queue: it reads all words at once, and goes on to later sets only while it was the first to mark a cell.
// (Whoever is first at a cell marks its whole box in the set after, so nothing is left out.)

/// One axis of a growth: cells [low, high] reach cells [(low + before) / stride, (high + padding) / stride].
struct Reach {
  int32_t before, padding, last;
  uint32_t reciprocal, same;  // n / stride is __umulhi(n, reciprocal) + (n & same)
};

struct Level {
  RankWord* words;
  int32_t *line_counts, *group_counts;
  int32_t words_per_line, depth, height;
  Reach reach[3];
};

struct Chain {
  int32_t count;
  Level level[kMaxGrowths];
};

__device__ __forceinline__ void grow(const Reach& r, int32_t& low, int32_t& high) {
  const uint32_t from = uint32_t(max(low + r.before, 0)), to = uint32_t(high + r.padding);
  low = int32_t(__umulhi(from, r.reciprocal) + (from & r.same));
  high = min(int32_t(__umulhi(to, r.reciprocal) + (to & r.same)), r.last);
}

/// What a cell reaches in one set: bits of one word (`next`: and of the next) on up to 2 x 2 lines. All steps
/// are written so that what they read comes from memory together.
struct Marks {
  int32_t line, at;  // the first line, its word
  uint32_t bits, next;
  uint32_t
      need[4];  // what the words hold, then the bits to set, then those that were new; line (i / 2, i % 2)
  uint32_t more[4];  // of the next words
  bool one, both_y, both_z;

  __device__ __forceinline__ bool exists(int i) const {
    return one && (i % 2 == 0 || both_y) && (i / 2 == 0 || both_z);
  }
};

__device__ __forceinline__ int32_t line_offset(const Level& level, int i) {
  return (i % 2 ? 1 : 0) + (i / 2 ? level.height : 0);
}

__device__ __forceinline__ uint32_t* word_of(const Level& level, const Marks& m, int i) {
  return &level.words[m.at + line_offset(level, i) * level.words_per_line].bits;
}

/// Sets the needed bits; what was there before is not known yet.
__device__ __forceinline__ void set_marks(const Level& level, Marks& m, uint32_t (&held)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    held[i] = 0;
    m.more[i] = 0xffffffffu;
    if (m.need[i]) held[i] = atomicOr(word_of(level, m, i), m.need[i]);
  }
  if (m.next) {  // seldom: not read before
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (m.exists(i)) m.more[i] = atomicOr(word_of(level, m, i) + 2, m.next);
    }
  }
}

/// Counts what was new; returns whether anything was.
__device__ __forceinline__ bool count_marks(const Level& level, const Marks& m, const uint32_t (&held)[4]) {
  int32_t count[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    count[i] = __popc(m.need[i] & ~held[i]);
    if (m.next) count[i] += __popc(m.next & ~m.more[i]);
    if (count[i]) atomicAdd(&level.line_counts[m.line + line_offset(level, i)], count[i]);
  }
#pragma unroll
  for (int i = 0; i < 4; i += 2) {  // neighbouring lines mostly share a group
    const int32_t line = m.line + line_offset(level, i), group = line / kLinesPerGroup;
    const bool same = (line + 1) / kLinesPerGroup == group;
    const int32_t here = same ? count[i] + count[i + 1] : count[i];
    if (here) atomicAdd(&level.group_counts[group], here);
    if (!same && count[i + 1]) atomicAdd(&level.group_counts[group + 1], count[i + 1]);
  }
  return count[0] | count[1] | count[2] | count[3];
}

constexpr int kChainThreads = 128, kLevels = 4;

/// Marks the caller's sites, and counts those that are outside or repeated.
__global__ __launch_bounds__(kChainThreads) void mark_input_kernel(const DeviceFrame* frame,
                                                                   const __grid_constant__ SitesView set,
                                                                   int32_t* status) {
  const DeviceFrame view = *frame;
  for (int32_t i = int32_t(blockIdx.x) * kChainThreads + int32_t(threadIdx.x); i < view.sites;
       i += int32_t(gridDim.x) * kChainThreads) {
    const int4 row = __ldg(reinterpret_cast<const int4*>(view.indices) + i);
    const bool inside = uint32_t(row.x) < uint32_t(view.batch) && uint32_t(row.y) < uint32_t(set.shape[0]) &&
                        uint32_t(row.z) < uint32_t(set.shape[1]) && uint32_t(row.w) < uint32_t(set.shape[2]);
    if (!inside) {
      atomicAdd(&status[kOutside], 1);
      atomicMin(&status[kFirstOutside], i);
      continue;
    }
    const int32_t line = line_of(set, row.x, row.y, row.z);
    const uint32_t bit = 1u << (row.w & 31);
    if (atomicOr(&set.words[int64_t(line) * set.words_per_line + (row.w >> 5)].bits, bit) & bit) {
      atomicAdd(&status[kDuplicates], 1);
      atomicMin(&status[kFirstDuplicate], i);
    } else {
      atomicAdd(&set.line_counts[line], 1);
      atomicAdd(&set.group_counts[line / kLinesPerGroup], 1);
    }
  }
}

__global__ __launch_bounds__(kChainThreads) void mark_chain_kernel(const __grid_constant__ SitesView first,
                                                                   const __grid_constant__ Chain chain) {
  const int32_t sites = *first.count;
  for (int32_t i = int32_t(blockIdx.x) * kChainThreads + int32_t(threadIdx.x); i < sites;
       i += int32_t(gridDim.x) * kChainThreads) {
    const int4 row = reinterpret_cast<const int4*>(first.sites)[i];
    int32_t z0 = row.y, z1 = z0, y0 = row.z, y1 = y0, x0 = row.w, x1 = x0;
    bool alive = true, reaches = true;
    for (int32_t begin = 0; begin < chain.count && alive; begin += kLevels) {
      Marks marks[kLevels];
#pragma unroll
      for (int l = 0; l < kLevels; ++l) {
        Marks& m = marks[l];
        const Level& level = chain.level[min(begin + l, chain.count - 1)];
        grow(level.reach[0], z0, z1);
        grow(level.reach[1], y0, y1);
        grow(level.reach[2], x0, x1);
        reaches = reaches && begin + l < chain.count && z0 <= z1 && y0 <= y1 && x0 <= x1;
        m.one = reaches;
        m.both_y = y1 > y0;
        m.both_z = z1 > z0;
        m.line = (row.x * level.depth + z0) * level.height + y0;
        m.at = m.line * level.words_per_line + (x0 >> 5);
        const uint32_t bits = 0xffffffffu >> ((31 - (x1 - x0)) & 31);
        m.bits = bits << (x0 & 31);
        m.next = reaches ? __funnelshift_l(bits, 0, x0 & 31) : 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          m.need[k] = 0xffffffffu;
          if (m.exists(k)) m.need[k] = __ldcg(word_of(level, m, k));
        }
      }
#pragma unroll
      for (int l = 0; l < kLevels; ++l) {
#pragma unroll
        for (int k = 0; k < 4; ++k) marks[l].need[k] = marks[l].bits & ~marks[l].need[k];
      }
      // The second and third sets go together: one by one, fewer cells would be marked twice, but later.
      static_assert(kLevels == 4, "as below");
      uint32_t held[2][4];
      set_marks(chain.level[begin], marks[0], held[0]);
      alive = count_marks(chain.level[begin], marks[0], held[0]);
      if (alive && begin + 1 < chain.count) {
        const Level &second = chain.level[begin + 1], &third = chain.level[min(begin + 2, chain.count - 1)];
        set_marks(second, marks[1], held[0]);
        set_marks(third, marks[2], held[1]);  // nothing to set if there is no such set
        alive = count_marks(second, marks[1], held[0]);
        if (begin + 2 < chain.count) alive = count_marks(third, marks[2], held[1]);
      }
      if (alive && begin + 3 < chain.count) {
        set_marks(chain.level[begin + 3], marks[3], held[0]);
        alive = count_marks(chain.level[begin + 3], marks[3], held[0]);
      }
    }
  }
}

/// Fills `chain` if the growths are what mark_chain_kernel can do.
bool chain_of(const std::vector<SitesView>& sets, const std::vector<Growth>& growths, Chain* chain) {
  *chain = Chain{};
  int64_t widths[3] = {1, 1, 1};  // of the largest box
  int32_t from = 0;
  for (const Growth& growth : growths) {
    const GeometryView& g = growth.geometry;
    if (growth.from != from || g.divides) return false;
    from = growth.to;
    const SitesView& set = sets[size_t(growth.to)];
    Level& level = chain->level[chain->count++];
    level.words = set.words;
    level.line_counts = set.line_counts;
    level.group_counts = set.group_counts;
    level.words_per_line = set.words_per_line;
    level.depth = set.shape[0];
    level.height = set.shape[1];
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t kernel = g.kernel[axis], stride = g.stride[axis], padding = g.padding[axis];
      widths[axis] = (widths[axis] + kernel - 2) / stride + 1;
      const int64_t largest = int64_t(sets[size_t(growth.from)].shape[axis]) + padding + stride;
      if (kernel > 1 && g.dilation[axis] != 1) return false;
      if (padding < 0 || largest * stride >= int64_t(1) << 31 || widths[axis] > 2) return false;
      Reach& reach = level.reach[axis];
      reach.before = int32_t(padding - kernel + stride);
      reach.padding = int32_t(padding);
      reach.last = set.shape[axis] - 1;
      reach.reciprocal = stride == 1 ? 0 : uint32_t((int64_t(1) << 32) / stride + 1);
      reach.same = stride == 1 ? 0xffffffffu : 0;
    }
  }
  return true;
}

// ----------------------------------------------------------------------------------------------------
// ranking

constexpr int kRankThreads = 256, kLineLanes = 8, kLaneWords = 6;

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

/// A block ranks one group of lines; kLineLanes threads share a line.
__global__ __launch_bounds__(kRankThreads) void rank_kernel(const __grid_constant__ SetTable sets,
                                                            const __grid_constant__ GroupTable groups,
                                                            int32_t* status) {
  static_assert(kLinesPerGroup == 64, "two warps count the lines of a group");
  __shared__ int32_t sums[kRankThreads / 32];
  __shared__ int4
      place[2][32];  // lines with sites, by half of the group: batch, z, y, sites before it in its half
  __shared__ int32_t lines[2], sites[2];
  __shared__ uint32_t words[kLaneWords][kRankThreads];  // what each thread has read
  int32_t which = 0;
  while (int32_t(blockIdx.x) >= groups.first[which + 1]) ++which;
  const SitesView& s = sets.set[which];
  const int32_t group = int32_t(blockIdx.x) - groups.first[which];
  const int32_t last = groups.first[which + 1] - groups.first[which] - 1;
  const int32_t thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int32_t own_line = group * kLinesPerGroup + thread;  // of two warps
  const int32_t count = thread < kLinesPerGroup && own_line < s.lines ? s.line_counts[own_line] : 0;
  const int32_t own = s.group_counts[group];
  if (!own && group != last) return;
  int32_t before = 0;
#pragma unroll 4
  for (int32_t i = thread; i < group; i += kRankThreads) before += s.group_counts[i];
  if (warp < 2) {
    const uint32_t used = __ballot_sync(0xffffffffu, count != 0);
    const int32_t inclusive = warp_inclusive(count);
    if (count) {
      const int32_t rest = own_line / s.shape[1], batch = rest / s.shape[0];
      place[warp][__popc(used & ((1u << lane) - 1))] =
          make_int4(batch, rest - batch * s.shape[0], own_line - rest * s.shape[1], inclusive - count);
    }
    if (lane == 31) {
      lines[warp] = __popc(used);
      sites[warp] = inclusive;
    }
  }
#pragma unroll
  for (int d = 16; d; d /= 2) before += __shfl_xor_sync(0xffffffffu, before, d);
  if (lane == 0) sums[warp] = before;
  __syncthreads();
  before = 0;
#pragma unroll
  for (int w = 0; w < kRankThreads / 32; ++w) before += sums[w];
  if (group == last && thread == 0) {
    status[kFound + s.number] = before + own;
    *s.count = min(before + own, s.capacity);
  }

  const int32_t in_first = lines[0], used = in_first + lines[1];
  const int32_t part = thread % kLineLanes;
  const int32_t per_lane = min((s.words_per_line + kLineLanes - 1) / kLineLanes, kLaneWords);
  // Whole warps go on together: their lanes exchange counts.
  for (int32_t slot = thread / kLineLanes; slot - lane / kLineLanes < used;
       slot += kRankThreads / kLineLanes) {
    const bool exists = slot < used;
    const int half = slot >= in_first;
    const int4 at = exists ? place[half][half ? slot - in_first : slot] : make_int4(0, 0, 0, 0);
    int32_t start = before + at.w + (half ? sites[0] : 0);
    RankWord* const line = s.words + int64_t(line_of(s, at.x, at.y, at.z)) * s.words_per_line;
    for (int32_t first = 0; first < s.words_per_line; first += per_lane * kLineLanes) {
      const int32_t begin = first + part * per_lane;
      uint32_t bits[kLaneWords];
#pragma unroll
      for (int i = 0; i < kLaneWords; ++i) {
        bits[i] = 0;
        if (exists && i < per_lane && begin + i < s.words_per_line) bits[i] = line[begin + i].bits;
      }
      int32_t found = 0;
      uint32_t filled = 0;  // a bit per word
#pragma unroll
      for (int i = 0; i < kLaneWords; ++i) {
        if (bits[i]) {
          found += __popc(bits[i]);
          filled |= 1u << i;
          words[i][thread] = bits[i];
        }
      }
      int32_t inclusive = found;
#pragma unroll
      for (int d = 1; d < kLineLanes; d *= 2) {
        const int32_t below = __shfl_up_sync(0xffffffffu, inclusive, d, kLineLanes);
        if (part >= d) inclusive += below;
      }
      const int32_t total = __shfl_sync(0xffffffffu, inclusive, kLineLanes - 1, kLineLanes);
      uint32_t left = 0;
      int32_t word = 0;
      const int32_t end = start + inclusive;
      for (int32_t rank = end - found; rank < end; ++rank) {
        if (!left) {
          const int32_t i = __ffs(int32_t(filled)) - 1;
          filled &= filled - 1;
          left = words[i][thread];
          word = begin + i;
          line[word].base = rank;
        }
        if (rank < s.capacity)
          reinterpret_cast<int4*>(s.sites)[rank] =
              make_int4(at.x, at.y, at.z, word * 32 + __ffs(int32_t(left)) - 1);
        left &= left - 1;
      }
      start += total;
    }
  }
}

// ---------------------------------------------------------------------------------------------------- kernel
// maps

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

// ----------------------------------------------------------------------------------------------------
// clearing

constexpr int kClearThreads = 256;

/// Threads take the sites of all sets in turn. Of neighbouring sites on a word or a line, the first one
/// clears it.
__global__ __launch_bounds__(kClearThreads) void clear_kernel(const __grid_constant__ SetTable sets,
                                                              const int32_t* status) {
  __shared__ int64_t first_item[kMaxSets + 1];
  __shared__ bool whole[kMaxSets];  // not every site is listed
  if (threadIdx.x < 32) {
    static_assert(kMaxSets <= 32, "a warp counts the items");
    const int32_t lane = threadIdx.x;
    int64_t items = 0;
    if (lane < sets.count) {
      const SitesView& s = sets.set[lane];
      const int32_t count = *s.count;
      const bool all = status[kFound + s.number] > s.capacity;
      items = all ? int64_t(s.lines) * s.words_per_line : count;
      whole[lane] = all;
    }
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const int64_t below = __shfl_up_sync(0xffffffffu, items, d);
      if (lane >= d) items += below;
    }
    if (lane < kMaxSets) first_item[lane + 1] = items;
    if (lane == 0) first_item[0] = 0;
  }
  __syncthreads();
  const int64_t items = first_item[sets.count], step = int64_t(gridDim.x) * kClearThreads;
  int32_t which = 0;
  for (int64_t item = int64_t(blockIdx.x) * kClearThreads + threadIdx.x; item < items; item += step) {
    while (item >= first_item[which + 1]) ++which;
    const SitesView& s = sets.set[which];
    const int64_t i = item - first_item[which];
    if (whole[which]) {
      s.words[i] = RankWord{0, 0};
      if (i < s.lines) {
        s.line_counts[i] = 0;
        s.group_counts[i / kLinesPerGroup] = 0;
      }
      continue;
    }
    const int4* const sites = reinterpret_cast<const int4*>(s.sites);
    const int4 at = __ldg(sites + i), other = i ? __ldg(sites + i - 1) : make_int4(-1, 0, 0, 0);
    const bool same_line = at.x == other.x && at.y == other.y && at.z == other.z;
    if (same_line && at.w >> 5 == other.w >> 5) continue;
    const int32_t line = line_of(s, at.x, at.y, at.z);
    s.words[int64_t(line) * s.words_per_line + (at.w >> 5)] = RankWord{0, 0};
    if (same_line) continue;
    s.line_counts[line] = 0;
    s.group_counts[line / kLinesPerGroup] = 0;
  }
}

int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "reading the device's limits");
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

void mark_input(const DeviceFrame* frame, const SitesView& input, int32_t* status, cudaStream_t stream) {
  mark_input_kernel<<<blocks_for(input.capacity, kChainThreads, int64_t(multiprocessors()) * 16), kChainThreads, 0,
                      stream>>>(frame, input, status);
  check_launch("marking the input's sites");
}

void mark_outputs(const std::vector<SitesView>& sets, const std::vector<Growth>& growths, cudaStream_t stream) {
  if (growths.empty()) return;
  if (growths.size() > size_t(kMaxGrowths)) {
    fail(ErrorKind::kArgument, "The CUDA backend runs networks with up to ", kMaxGrowths,
         " strided or transposed convolutions that make new sites, this has ", growths.size(), ". Run it on the CPU.");
  }
  Chain chain;
  if (chain_of(sets, growths, &chain)) {
    const uint32_t blocks = blocks_for(sets[0].capacity, kChainThreads, int64_t(multiprocessors()) * 16);
    mark_chain_kernel<<<blocks, kChainThreads, 0, stream>>>(sets[0], chain);
    return check_launch("marking sites");
  }
  GrowthTable table{};
  table.count = int32_t(growths.size());
  std::copy(growths.begin(), growths.end(), table.growth);
  const uint32_t blocks = blocks_for(sets[0].capacity, kMarkThreads, int64_t(multiprocessors()) * 8);
  mark_kernel<<<blocks, kMarkThreads, 0, stream>>>(table_of(sets), table);
  check_launch("marking sites");
}

void rank_sites(const std::vector<SitesView>& sets, int32_t* status, cudaStream_t stream) {
  GroupTable groups{};
  for (size_t i = 0; i < sets.size(); ++i)
    groups.first[i + 1] = groups.first[i] + (sets[i].lines + kLinesPerGroup - 1) / kLinesPerGroup;
  rank_kernel<<<uint32_t(groups.first[sets.size()]), kRankThreads, 0, stream>>>(table_of(sets), groups,
                                                                                status);
  check_launch("ranking sites");
}

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

void clear_sites(const std::vector<SitesView>& sets, const int32_t* status, cudaStream_t stream) {
  int64_t sites = 0;
  for (const SitesView& set : sets) sites += set.capacity;
  const uint32_t blocks = blocks_for(sites, kClearThreads, int64_t(multiprocessors()) * 8);
  clear_kernel<<<blocks, kClearThreads, 0, stream>>>(table_of(sets), status);
  check_launch("clearing sites");
}

}  // namespace scn::cuda
