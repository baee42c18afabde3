// SPDX-License-Identifier: Apache-2.0
// The beginning and the end of a frame, and the ranks of marked cells.
#include "cuda/runtime/device_code.cuh"
#include "cuda/runtime/launch.h"
#include "cuda/sites/geometry.h"
#include "cuda/sites/lookup.cuh"
#include "cuda/sites/set_table.h"

namespace scn::cuda {
namespace {

__global__ void begin_kernel(DeviceFrame* frame, const DeviceFrame value, int32_t* status, int32_t entries,
                             int32_t* far_counts, int32_t maps) {
  if (threadIdx.x == 0) *frame = value;
  for (int32_t i = threadIdx.x; i < maps; i += blockDim.x) far_counts[i] = 0;
  for (int32_t i = threadIdx.x; i < entries; i += blockDim.x) {
    status[i] = holds_row(i) ? kNoRow : 0;
  }
}

// Ranking takes two kernels, since sites are far from even: the densest tenth of the lines can have most of
// them. The first counts blocks of lines that follow each other, the second deals single lines out to warps,
// so that neighbours go to different multiprocessors.

constexpr int kRankThreads = 256, kRankWarps = kRankThreads / 32;
constexpr int kRankBlocks = 4;     // on a multiprocessor, all at once
constexpr int kRankRounds = 4;     // lines of a warp whose words are read together
constexpr int kMostCounts = 2048;  // of a set: every block sums them up
static_assert(kRankThreads % kLinesPerGroup == 0, "group_counts has room for the counts of larger blocks");

/// The blocks of all sets, one set after another, and the lines that are counted together.
struct RankTable {
  int32_t first[kMaxSets + 1];
  int32_t lines_together[kMaxSets];
};

__device__ __forceinline__ int32_t set_of_block(const RankTable& table) {
  int32_t which = 0;
  while (int32_t(blockIdx.x) >= table.first[which + 1]) ++which;
  return which;
}

/// Sum over the threads before this one; `total`: over all. Every thread of the block calls it.
__device__ __forceinline__ int32_t block_exclusive(int32_t v, int32_t& total) {
  __shared__ int32_t sums[kRankWarps];
  const int32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, inclusive = warp_inclusive(v);
  __syncthreads();  // the sums of the call before have been read
  if (lane == 31) sums[warp] = inclusive;
  __syncthreads();
  int32_t before = 0;
  total = 0;
#pragma unroll
  for (int w = 0; w < kRankWarps; ++w) {
    before += w < warp ? sums[w] : 0;
    total += sums[w];
  }
  return before + inclusive - v;
}

/// A block counts the sites of some lines. Lines that have any get 2 n + 1 instead of their count, with n
/// sites before them in the block.
__global__ __launch_bounds__(kRankThreads) void count_kernel(const __grid_constant__ SetTable sets,
                                                             const __grid_constant__ RankTable table) {
  const int32_t which = set_of_block(table), block = int32_t(blockIdx.x) - table.first[which];
  const SitesView& s = sets.set[which];
  const int32_t first = block * table.lines_together[which],
                end = min(first + table.lines_together[which], s.lines);
  wait_for_dependency();
  launch_dependents();
  int32_t before = 0;
  for (int32_t start = first; start < end; start += kRankThreads) {
    const int32_t line = start + int32_t(threadIdx.x);
    const int32_t count = line < end ? __ldcg(s.line_counts + line) : 0;
    int32_t total;
    const int32_t exclusive = block_exclusive(count, total);
    if (count) s.line_counts[line] = 2 * (before + exclusive) + 1;
    before += total;
  }
  if (threadIdx.x == 0) s.group_counts[block] = before;
}

/// A line with sites, and how many come before it.
struct UsedLine {
  int32_t batch, z, y, before;
};

/// Ranks and sites; line_counts are zero again. A warp takes one line at a time, or two, four or more short
/// ones; a lane has a word of a short line, two of a line of more than 32 words.
__global__ __launch_bounds__(kRankThreads,
                             kRankBlocks) void rank_kernel(const __grid_constant__ SetTable sets,
                                                           const __grid_constant__ RankTable table,
                                                           int32_t* status) {
  __shared__ int32_t before_counted[kMostCounts];
  __shared__ UsedLine places[kRankWarps][32];
  const int32_t which = set_of_block(table), block = int32_t(blockIdx.x) - table.first[which];
  const SitesView& s = sets.set[which];
  const int32_t together = table.lines_together[which], counts = (s.lines + together - 1) / together;
  const int32_t blocks = table.first[which + 1] - table.first[which], warps = blocks * kRankWarps;
  const int32_t thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, line_words = s.words_per_line;
  int32_t width = 32;  // lanes of a line
  while (width / 2 >= line_words) width /= 2;
  const int32_t part = lane & (width - 1), own_slot = lane / width, at_once = 32 / width;
  const bool two = line_words > width;
  const int32_t step = two ? 2 * width : width, first_word = two ? 2 * part : part;
  UsedLine* const place = places[warp];
  wait_for_dependency();
  launch_dependents();

  int64_t own_line = int64_t(lane) * warps + warp * blocks + block;
  int32_t mark = own_line < s.lines ? __ldcg(s.line_counts + own_line) : 0;  // with the counts below
  int32_t all = 0;
  for (int32_t start = 0; start < counts; start += kRankThreads) {
    const int32_t at = start + thread;
    const int32_t count = at < counts ? __ldcg(s.group_counts + at) : 0;
    int32_t total;
    const int32_t exclusive = block_exclusive(count, total);
    if (at < counts) before_counted[at] = all + exclusive;
    all += total;
  }
  __syncthreads();
  if (block == 0 && thread == 0) {
    status[kFound + s.number] = all;
    *s.count = min(all, s.capacity);
  }

  for (int64_t start = 0; start < s.lines; start += int64_t(32) * warps) {
    if (start) {
      own_line += int64_t(32) * warps;
      mark = own_line < s.lines ? __ldcg(s.line_counts + own_line) : 0;
    }
    const uint32_t marked = __ballot_sync(0xffffffffu, mark != 0);
    const int32_t used = __popc(marked);
    __syncwarp();
    if (mark) {
      const int32_t line = int32_t(own_line), rest = line / s.shape[1], batch = rest / s.shape[0];
      place[__popc(marked & ((1u << lane) - 1))] =
          UsedLine{batch, rest - batch * s.shape[0], line - rest * s.shape[1],
                   before_counted[line / together] + (mark >> 1)};
      s.line_counts[line] = 0;
    }
    __syncwarp();
    for (int32_t first_slot = 0; first_slot < used; first_slot += kRankRounds * at_once) {
      int32_t done[kRankRounds] = {};  // sites of the line so far
      for (int32_t word = first_word; word - first_word < line_words; word += step) {
        uint32_t bits[kRankRounds][2];
#pragma unroll
        for (int r = 0; r < kRankRounds; ++r) {  // what all rounds need comes from memory together
          bits[r][0] = bits[r][1] = 0;
          const int32_t slot = first_slot + r * at_once + own_slot;
          if (slot >= used || word >= line_words) continue;
          const UsedLine at = place[slot];
          const RankWord* const from =
              s.words + int64_t(line_of(s, at.batch, at.z, at.y)) * line_words + word;
          bits[r][0] = __ldcg(&from[0].bits);
          if (two && word + 1 < line_words) bits[r][1] = __ldcg(&from[1].bits);
        }
#pragma unroll
        for (int r = 0; r < kRankRounds; ++r) {
          const int32_t slot = first_slot + r * at_once;
          if (slot >= used) break;  // whole warps go on together: they exchange counts
          const int32_t in_first = __popc(bits[r][0]), found = in_first + __popc(bits[r][1]);
          int32_t up_to = found;
          for (int32_t d = 1; d < width; d *= 2) {
            const int32_t below = __shfl_up_sync(0xffffffffu, up_to, d, width);
            if (part >= d) up_to += below;
          }
          const int32_t total = __shfl_sync(0xffffffffu, up_to, width - 1, width);
          if (found) {
            const UsedLine at = place[slot + own_slot];
            int32_t rank = at.before + done[r] + up_to - found;
            RankWord* const to = s.words + int64_t(line_of(s, at.batch, at.z, at.y)) * line_words + word;
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
              reinterpret_cast<int4*>(s.sites)[rank] =
                  make_int4(at.batch, at.z, at.y, x + __ffs(int32_t(left)));
              left &= left - 1;
            }
          }
          done[r] += total;
        }
      }
    }
  }
}

constexpr int kClearThreads = 256;

/// Blocks of all sets, one set after another.
struct ClearTable {
  int32_t first[kMaxSets + 1];
};

/// Clears the words of all sites; a word of several sites more than once, which costs less than finding out.
__global__ __launch_bounds__(kClearThreads) void clear_kernel(const __grid_constant__ SetTable sets,
                                                              const __grid_constant__ ClearTable blocks,
                                                              const int32_t* status) {
  int32_t which = 0;
  while (int32_t(blockIdx.x) >= blocks.first[which + 1]) ++which;
  const SitesView& s = sets.set[which];
  const int32_t step = (blocks.first[which + 1] - blocks.first[which]) * kClearThreads;
  const int32_t own = (int32_t(blockIdx.x) - blocks.first[which]) * kClearThreads + int32_t(threadIdx.x);
  wait_for_dependency();
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
  const DeviceLimits limits = current_limits();
  const int64_t most = int64_t(limits.multiprocessors) * kRankBlocks;
  int64_t lines = 0;
  for (const SitesView& set : sets) lines += set.lines;
  RankTable counting{}, ranking{};
  for (size_t i = 0; i < sets.size(); ++i) {
    const int64_t own = sets[i].lines;
    const int32_t rounds = int32_t((own - 1) / (int64_t(kMostCounts) * kRankThreads)) + 1,
                  together = rounds * kRankThreads;
    counting.lines_together[i] = ranking.lines_together[i] = together;
    counting.first[i + 1] = counting.first[i] + int32_t((own + together - 1) / together);
    ranking.first[i + 1] = ranking.first[i] + int32_t(std::max<int64_t>(1, most * own / lines));
  }
  launch_early(count_kernel, dim3(uint32_t(counting.first[sets.size()])), kRankThreads, 0, limits, stream,
               table, counting);
  launch_early(rank_kernel, dim3(uint32_t(ranking.first[sets.size()])), kRankThreads, 0, limits, stream,
               table, ranking, status);
  check_launch("ranking sites");
}

void clear_sites(const std::vector<SitesView>& sets, const int32_t* status, cudaStream_t stream) {
  const SetTable table = table_of(sets);
  ClearTable blocks{};
  // All blocks start at once: capacities are much larger than most frames, and blocks without work also take
  // time.
  const int64_t most =
      std::max<int64_t>(1, int64_t(current_limits().multiprocessors) * 8 / int64_t(sets.size()));
  for (size_t i = 0; i < sets.size(); ++i)
    blocks.first[i + 1] = blocks.first[i] + int32_t(blocks_for(sets[i].capacity, kClearThreads, most));
  launch_early(clear_kernel, dim3(uint32_t(blocks.first[sets.size()])), kClearThreads, 0, current_limits(),
               stream, table, blocks, status);
  check_launch("clearing sites");
}

}  // namespace scn::cuda
