// SPDX-License-Identifier: Apache-2.0
// The beginning and the end of a frame, and the ranks of marked cells.
#include "cuda/geometry_common.cuh"
#include "cuda/mma.cuh"

namespace scn::cuda {
namespace {

__global__ void begin_kernel(DeviceFrame* frame, const DeviceFrame value, int32_t* status, int32_t entries,
                             int32_t* far_counts, int32_t maps) {
  if (threadIdx.x == 0) *frame = value;
  for (int32_t i = threadIdx.x; i < maps; i += blockDim.x) far_counts[i] = 0;
  for (int32_t i = threadIdx.x; i < entries; i += blockDim.x) {
    const bool first = i == kFirstOutside || i == kFirstDuplicate || i == kFirstNonFinite;
    status[i] = first ? kNoRow : 0;
  }
}

constexpr int kRankThreads = 256, kRankWarps = kRankThreads / 32;
constexpr int kRankRounds = kLinesPerGroup / kRankWarps;  // lines that a warp can have
constexpr uint32_t kCounted = 1u << 31;                   // in group_counts: the rest of the number is valid
static_assert(kLinesPerGroup == 32, "a warp counts the lines of a group");

/// The groups of all sets, one set after another.
struct GroupTable {
  int32_t first[kMaxSets + 1];
};

/// A count that another block may be writing. Volatile: compilers move __ldcg out of a loop that waits.
__device__ __forceinline__ uint32_t load_counted(const int32_t* at) {
  uint32_t count;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(at) : "memory");
  return count;
}

/// Sites of all groups before one, a share for each thread of a block. Waits until they are counted: by
/// blocks with lower numbers, which start earlier and wait for none with a higher one.
__device__ __forceinline__ int32_t sites_before(const int32_t* group_counts, int32_t group) {
  constexpr int kTogether = 8;
  int32_t sum = 0;
  for (int32_t first = int32_t(threadIdx.x); first < group; first += kTogether * kRankThreads) {
    uint32_t count[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int32_t at = first + i * kRankThreads;
      count[i] = at < group ? load_counted(group_counts + at) : kCounted;
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      while (!(count[i] & kCounted)) count[i] = load_counted(group_counts + first + i * kRankThreads);
      sum += int32_t(count[i] & ~kCounted);
    }
  }
  return sum;
}

/// A block counts one group of lines, lets the blocks after it know, and ranks it; line_counts are zero
/// again. (Marking does not count groups: thousands of atomics on the few that hold most sites would take
/// longer than the rest of it.) A warp takes one line at a time, or two, four or more short ones; a lane has
/// a word of a short line, two of a line of more than 32 words.
__global__ __launch_bounds__(kRankThreads, 6) void rank_kernel(const __grid_constant__ SetTable sets,
                                                               const __grid_constant__ GroupTable groups,
                                                               int32_t* status) {
  __shared__ int32_t sums[kRankWarps];
  __shared__ int4 place[kLinesPerGroup];  // lines with sites: batch, z, y, sites before it in its group
  __shared__ int32_t lines, found_here;
  int32_t which = 0;
  while (int32_t(blockIdx.x) >= groups.first[which + 1]) ++which;
  const SitesView& s = sets.set[which];
  const int32_t group = int32_t(blockIdx.x) - groups.first[which];
  const int32_t last = groups.first[which + 1] - groups.first[which] - 1;
  const int32_t thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  wait_for_dependency();
  launch_dependents();
  if (warp == 0) {
    const int32_t own_line = group * kLinesPerGroup + lane;
    const int32_t count = own_line < s.lines ? __ldcg(s.line_counts + own_line) : 0;
    const int32_t inclusive = warp_inclusive(count);
    if (lane == 31) {
      __stcg(s.group_counts + group, int32_t(uint32_t(inclusive) | kCounted));
      found_here = inclusive;
    }
    const uint32_t used = __ballot_sync(0xffffffffu, count != 0);
    if (count) {
      const int32_t rest = own_line / s.shape[1], batch = rest / s.shape[0];
      place[__popc(used & ((1u << lane) - 1))] =
          make_int4(batch, rest - batch * s.shape[0], own_line - rest * s.shape[1], inclusive - count);
      s.line_counts[own_line] = 0;
    }
    if (lane == 0) lines = __popc(used);
  }
  __syncthreads();
  const int32_t used = lines, own = found_here, line_words = s.words_per_line;
  if (!own && group != last) return;

  int32_t width = 32;  // lanes of a line
  while (width / 2 >= line_words && width > kRankThreads / kLinesPerGroup) width /= 2;
  const int32_t part = thread & (width - 1), step = kRankThreads / width;
  const int32_t own_slot = thread / width, warp_slot = (thread - lane) / width;
  const bool two = line_words > width;
  uint32_t bits[kRankRounds][2];
  const auto load_bits = [&](int32_t word) {
#pragma unroll
    for (int r = 0; r < kRankRounds; ++r) {  // what all rounds need comes from memory together
      bits[r][0] = bits[r][1] = 0;
      const int32_t slot = own_slot + r * step;
      if (slot >= used || word >= line_words) continue;
      const int4 at = place[slot];
      const RankWord* const from = s.words + int64_t(line_of(s, at.x, at.y, at.z)) * line_words + word;
      bits[r][0] = __ldcg(&from[0].bits);
      if (two && word + 1 < line_words) bits[r][1] = __ldcg(&from[1].bits);
    }
  };
  load_bits(two ? 2 * part : part);  // under way while the groups before are counted
  int32_t before = warp_sum(sites_before(s.group_counts, group));
  if (lane == 0) sums[warp] = before;
  __syncthreads();
  before = 0;
#pragma unroll
  for (int w = 0; w < kRankWarps; ++w) before += sums[w];
  if (group == last && thread == 0) {
    status[kFound + s.number] = before + own;
    *s.count = min(before + own, s.capacity);
  }

  int32_t done[kRankRounds] = {};  // sites of the line so far
  for (int32_t first = 0; first < line_words; first += two ? 2 * width : width) {
    const int32_t word = first + (two ? 2 * part : part);
    if (first) load_bits(word);
#pragma unroll
    for (int r = 0; r < kRankRounds; ++r) {
      if (warp_slot + r * step >= used) break;  // whole warps go on together: their lanes exchange counts
      const int32_t in_first = __popc(bits[r][0]), found = in_first + __popc(bits[r][1]);
      int32_t inclusive = found;
      for (int32_t d = 1; d < width; d *= 2) {
        const int32_t below = __shfl_up_sync(0xffffffffu, inclusive, d, width);
        if (part >= d) inclusive += below;
      }
      const int32_t total = __shfl_sync(0xffffffffu, inclusive, width - 1, width);
      if (found) {
        const int4 at = place[own_slot + r * step];
        int32_t rank = before + at.w + done[r] + inclusive - found;
        RankWord* const to = s.words + int64_t(line_of(s, at.x, at.y, at.z)) * line_words + word;
        uint32_t left = bits[r][0], next = bits[r][1];
        if (left) to[0].base = rank;
        if (next) to[1].base = rank + in_first;
        const int32_t end = min(rank + found, s.capacity);
        int32_t x = word * 32 - 1;
        for (; rank < end; ++rank) {
          if (!left) {
            left = next;
            x += 32;
          }
          reinterpret_cast<int4*>(s.sites)[rank] = make_int4(at.x, at.y, at.z, x + __ffs(int32_t(left)));
          left &= left - 1;
        }
      }
      done[r] += total;
    }
  }
}

constexpr int kClearThreads = 256;

/// Blocks of all sets, one set after another.
struct ClearTable {
  int32_t first[kMaxSets + 1];
};

/// Clears the words of all sites, and the groups' counts; a word of several sites more than once, which costs
/// less than finding out.
__global__ __launch_bounds__(kClearThreads) void clear_kernel(const __grid_constant__ SetTable sets,
                                                              const __grid_constant__ ClearTable blocks,
                                                              const int32_t* status) {
  int32_t which = 0;
  while (int32_t(blockIdx.x) >= blocks.first[which + 1]) ++which;
  const SitesView& s = sets.set[which];
  const int32_t step = (blocks.first[which + 1] - blocks.first[which]) * kClearThreads;
  const int32_t own = (int32_t(blockIdx.x) - blocks.first[which]) * kClearThreads + int32_t(threadIdx.x);
  const int32_t group_count = (s.lines + kLinesPerGroup - 1) / kLinesPerGroup;
  wait_for_dependency();
  for (int32_t i = own; i < group_count; i += step) s.group_counts[i] = 0;
  const int4* const sites = reinterpret_cast<const int4*>(s.sites);
  // Before it is known whether there is such a site: waiting for the count first would double the time. Not
  // by the read-only path, which could be asked before the wait.
  int4 at = make_int4(0, 0, 0, 0);
  if (own < s.capacity) at = __ldcg(sites + own);
  const int32_t count = *s.count, found = status[kFound + s.number];
  if (found > s.capacity) {  // not every site is listed
    const int64_t words = int64_t(s.lines) * s.words_per_line;
    for (int64_t i = own; i < words; i += step) s.words[i] = RankWord{0, 0};
    return;
  }
  for (int64_t i = own; i < count; i += step) {
    if (i != own) at = __ldcg(sites + i);
    s.words[int64_t(line_of(s, at.x, at.y, at.z)) * s.words_per_line + (at.w >> 5)] = RankWord{0, 0};
  }
}

}  // namespace

void begin_frame(DeviceFrame* frame, const DeviceFrame& value, int32_t* status, int32_t status_entries,
                 int32_t* far_counts, int32_t maps, cudaStream_t stream) {
  begin_kernel<<<1, 128, 0, stream>>>(frame, value, status, status_entries, far_counts, maps);
  check_launch("begin");
}

void rank_sites(const std::vector<SitesView>& sets, int32_t* status, cudaStream_t stream) {
  const SetTable table = table_of(sets);
  GroupTable groups{};
  for (size_t i = 0; i < sets.size(); ++i)
    groups.first[i + 1] = groups.first[i] + (sets[i].lines + kLinesPerGroup - 1) / kLinesPerGroup;
  launch_early(rank_kernel, dim3(uint32_t(groups.first[sets.size()])), kRankThreads, 0, launch_limits(),
               stream, table, groups, status);
  check_launch("ranking sites");
}

void clear_sites(const std::vector<SitesView>& sets, const int32_t* status, cudaStream_t stream) {
  const SetTable table = table_of(sets);
  ClearTable blocks{};
  // All blocks start at once: capacities are much larger than most frames, and blocks without work also take
  // time.
  const int64_t most = std::max<int64_t>(1, int64_t(multiprocessors()) * 8 / int64_t(sets.size()));
  for (size_t i = 0; i < sets.size(); ++i)
    blocks.first[i + 1] = blocks.first[i] + int32_t(blocks_for(sets[i].capacity, kClearThreads, most));
  launch_early(clear_kernel, dim3(uint32_t(blocks.first[sets.size()])), kClearThreads, 0, launch_limits(),
               stream, table, blocks, status);
  check_launch("clearing sites");
}

}  // namespace scn::cuda
