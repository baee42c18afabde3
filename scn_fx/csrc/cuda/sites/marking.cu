// SPDX-License-Identifier: Apache-2.0
// Which cells are sites: the caller's, then what strided and transposed convolutions reach from them.
#include "cuda/runtime/device_code.cuh"
#include "cuda/runtime/launch.h"
#include "cuda/sites/geometry.h"
#include "cuda/sites/lookup.cuh"
#include "cuda/sites/set_table.h"

namespace scn::cuda {
namespace {

struct GrowthTable {
  int32_t count;
  Growth growth[kMaxGrowths];
};

static_assert(sizeof(SetTable) + sizeof(GrowthTable) <= 4096, "parameters of a kernel");

/// Sets bits of one word of a line; returns those that were not set before, and counts them.
__device__ __forceinline__ uint32_t set_bits(const SitesView& s, int32_t line, int32_t word, uint32_t bits) {
  uint32_t* const at = &s.words[int64_t(line) * s.words_per_line + word].bits;
  bits &= ~*reinterpret_cast<volatile uint32_t*>(at);  // most cells were found before: save the atomic
  if (!bits) return 0;
  bits &= ~atomicOr(at, bits);
  if (bits) atomicAdd(&s.line_counts[line], __popc(bits));
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
  launch_dependents();
  const SitesView& first = sets.set[0];
  const int32_t sites = *first.count;
  // A cell that the queue cannot take is expanded at once, and what it reaches after it.
  const auto push = [&](int32_t set, const Site& site) {
    const int32_t at = atomicAdd(&tail, 1);
    if (at < kQueue) queue[at] = make_int4(site.batch * kMaxSets + set, site.z, site.y, site.x);
    return at < kQueue;
  };
  const auto expand_deep = [&](int32_t set, const Site& site) {
    // Cells wait on a stack in local memory: each visit goes on with the deepest level first, so that one
    // entry a level is enough.
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
        ++depth;  // growths lead to later sets: no deeper than there are sets
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
// queue: it reads all words at once.

/// One axis of a growth: cells [low, high] reach cells [(low + before) / stride, (high + padding) / stride].
struct Reach {
  int32_t before, padding, last;
  uint32_t reciprocal, same;  // n / stride is __umulhi(n, reciprocal) + (n & same)
};

struct Level {
  RankWord* words;
  int32_t* line_counts;
  int32_t words_per_line, depth, height;
  Reach reach[3];
};

struct Chain {
  int32_t count;
  Level level[kMaxSets];  // each makes another set
};

__device__ __forceinline__ void grow(const Reach& r, int32_t& low, int32_t& high) {
  const uint32_t from = uint32_t(max(low + r.before, 0)), to = uint32_t(high + r.padding);
  low = int32_t(__umulhi(from, r.reciprocal) + (from & r.same));
  high = min(int32_t(__umulhi(to, r.reciprocal) + (to & r.same)), r.last);
}

/// What a cell reaches in one set: bits of one word (`next`: and of the next) on up to 2 x 2 lines.
struct Marks {
  int32_t line, at;     // the first line, its word
  uint32_t bits, next;  // 0: nothing
  uint32_t need[4];     // what the words hold, then the bits to set; line (i / 2, i % 2)
  bool both_y, both_z;

  __device__ __forceinline__ bool exists(int i) const {
    return bits && (i % 2 == 0 || both_y) && (i / 2 == 0 || both_z);
  }
};

__device__ __forceinline__ int32_t line_offset(const Level& level, int i) {
  return (i % 2 ? 1 : 0) + (i / 2 ? level.height : 0);
}

__device__ __forceinline__ uint32_t* word_of(const Level& level, const Marks& m, int i) {
  return &level.words[m.at + line_offset(level, i) * level.words_per_line].bits;
}

constexpr int kTogether = 8;

/// The bits that this lane has to set for itself and for the lanes behind it that want the same word: sites
/// ascend, so those are neighbours. (Threads that meet at a word or a counter take turns, slowly.)
__device__ __forceinline__ uint32_t for_others_too(int32_t word, uint32_t bits) {
  const int32_t lane = threadIdx.x & (kTogether - 1), key = bits ? word : -1;
#pragma unroll
  for (int d = 1; d < kTogether; d *= 2) {
    const uint32_t theirs = __shfl_down_sync(0xffffffffu, bits, d, kTogether);
    const int32_t their_key = __shfl_down_sync(0xffffffffu, key, d, kTogether);
    if (lane + d < kTogether && their_key == key) bits |= theirs;
  }
  const int32_t before = __shfl_up_sync(0xffffffffu, key, 1, kTogether);
  return lane == 0 || before != key ? bits : 0;
}

constexpr int kChainThreads = 128, kLevels = 2;

/// Marks the caller's sites, and counts those that are outside or repeated.
__global__ __launch_bounds__(kChainThreads) void mark_input_kernel(const DeviceFrame* frame,
                                                                   const __grid_constant__ SitesView set,
                                                                   int32_t* status) {
  launch_dependents();
  const DeviceFrame view = *frame;
  for (int32_t i = int32_t(blockIdx.x) * kChainThreads + int32_t(threadIdx.x); i < view.sites;
       i += int32_t(gridDim.x) * kChainThreads) {
    const int4 row = __ldg(reinterpret_cast<const int4*>(view.indices) + i);
    if (!inside(view, set, Site{row.x, row.y, row.z, row.w})) {
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
    }
  }
}

/// Whole warps go on together, since their lanes set bits for each other.
__global__ __launch_bounds__(kChainThreads) void mark_chain_kernel(const __grid_constant__ SitesView first,
                                                                   const __grid_constant__ Chain chain) {
  wait_for_dependency();
  launch_dependents();
  const int32_t sites = *first.count;
  for (int32_t i = int32_t(blockIdx.x) * kChainThreads + int32_t(threadIdx.x); (i & ~31) < first.capacity;
       i += int32_t(gridDim.x) * kChainThreads) {
    int4 row = make_int4(0, 0, 0, 0);
    if (i < first.capacity) row = __ldcg(reinterpret_cast<const int4*>(first.sites) + i);
    if ((i & ~31) >= sites) break;  // after the row was asked for
    int32_t z0 = row.y, z1 = z0, y0 = row.z, y1 = y0, x0 = row.w, x1 = x0;
    bool reaches = i < sites;
    for (int32_t begin = 0; begin < chain.count; begin += kLevels) {
      Marks marks[kLevels];
#pragma unroll
      for (int l = 0; l < kLevels; ++l) {  // what is read comes from memory together
        Marks& m = marks[l];
        const Level& level = chain.level[min(begin + l, chain.count - 1)];
        grow(level.reach[0], z0, z1);
        grow(level.reach[1], y0, y1);
        grow(level.reach[2], x0, x1);
        reaches = reaches && begin + l < chain.count && z0 <= z1 && y0 <= y1 && x0 <= x1;
        m.both_y = y1 > y0;
        m.both_z = z1 > z0;
        m.line = (row.x * level.depth + z0) * level.height + y0;
        m.at = m.line * level.words_per_line + (x0 >> 5);
        const uint32_t bits = 0xffffffffu >> ((31 - (x1 - x0)) & 31);
        m.bits = reaches ? bits << (x0 & 31) : 0;
        m.next = reaches ? __funnelshift_l(bits, 0, x0 & 31) : 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          m.need[k] = 0xffffffffu;
          if (m.exists(k)) m.need[k] = __ldcg(word_of(level, m, k));
        }
      }
      // Most cells were found before, which saves marking them. The rest is marked without asking who was
      // first: whoever marks a cell also marks what it reaches in the sets after.
      uint32_t held[kLevels][4];
#pragma unroll
      for (int l = 0; l < kLevels; ++l) {
        Marks& m = marks[l];
        const Level& level = chain.level[min(begin + l, chain.count - 1)];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int32_t word = m.at + line_offset(level, k) * level.words_per_line;
          m.need[k] = for_others_too(word, m.bits & ~m.need[k]);
          held[l][k] = 0;
          if (m.need[k]) held[l][k] = atomicOr(&level.words[word].bits, m.need[k]);
        }
      }
#pragma unroll
      for (int l = 0; l < kLevels; ++l) {
        const Marks& m = marks[l];
        const Level& level = chain.level[min(begin + l, chain.count - 1)];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          int32_t count = __popc(m.need[k] & ~held[l][k]);
          if (m.next && m.exists(k))  // seldom: not read before
            count += __popc(m.next & ~atomicOr(word_of(level, m, k) + 2, m.next));
          if (count) atomicAdd(&level.line_counts[m.line + line_offset(level, k)], count);
        }
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

}  // namespace

void mark_input(const DeviceFrame* frame, const SitesView& input, int32_t* status, cudaStream_t stream) {
  mark_input_kernel<<<blocks_for(input.capacity, kChainThreads,
                                 int64_t(current_limits().multiprocessors) * 16),
                      kChainThreads, 0, stream>>>(frame, input, status);
  check_launch("marking the input's sites");
}

void mark_outputs(const std::vector<SitesView>& sets, const std::vector<Growth>& growths,
                  cudaStream_t stream) {
  if (growths.empty()) return;
  Chain chain;
  if (chain_of(sets, growths, &chain)) {
    const uint32_t blocks =
        blocks_for(sets[0].capacity, kChainThreads, int64_t(current_limits().multiprocessors) * 16);
    launch_early(mark_chain_kernel, dim3(blocks), kChainThreads, 0, current_limits(), stream, sets[0], chain);
    return check_launch("marking sites");
  }
  GrowthTable table{};
  table.count = int32_t(growths.size());
  std::copy(growths.begin(), growths.end(), table.growth);
  const uint32_t blocks =
      blocks_for(sets[0].capacity, kMarkThreads, int64_t(current_limits().multiprocessors) * 8);
  mark_kernel<<<blocks, kMarkThreads, 0, stream>>>(table_of(sets), table);
  check_launch("marking sites");
}

}  // namespace scn::cuda
