// SPDX-License-Identifier: Apache-2.0
// How many products of packed int8 weights fit into a 16-bit sum.
#include <algorithm>

#include "cpu/kernels/kernels.h"

namespace scn {
namespace {

constexpr int32_t kLane = 2;  // channels of a quad that meet in one sum
constexpr int32_t kLanes = kOutputBlock * kInputQuad / kLane;

// A sum of x * w with x in [0, 127] lies between -127 * the sum of the negative weights' magnitudes and 127 *
// the sum of the positive ones: 127 * 258 = 32766 is the last that fits on either side.
constexpr int32_t kMostWeight = 258;

/// Sums of the weights of each sign that meet in a lane.
struct Signed {
  int32_t positive = 0, negative = 0;
};

Signed lane_weights(const int8_t* block, int32_t quad, int32_t group, int32_t lane) {
  Signed sums;
  for (int32_t i = quad; i < quad + group; ++i) {
    for (int32_t c = 0; c < kLane; ++c) {
      const int32_t w = block[(i * kLanes + lane) * kLane + c];
      (w > 0 ? sums.positive : sums.negative) += w;
    }
  }
  return sums;
}

/// Whether every sum of `group` quads fits, for the outputs and the quads of one block.
bool fits(const int8_t* block, int32_t quads, int32_t group) {
  for (int32_t q = 0; q < quads; q += group) {
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      const Signed w = lane_weights(block, q, group, lane);
      if (w.positive > kMostWeight || w.negative < -kMostWeight) return false;
    }
  }
  return true;
}

/// What a sum may start at so that it never leaves 16 bits.
struct Range {
  int32_t low, high;
};

Range shift_range(const Signed& w) { return {-32768 - 127 * w.negative, 32767 - 127 * w.positive}; }

/// Finds shifts [quads / kShiftedGroup, kLanes] with which all sums of a block fit: for every output they add
/// up to zero, so that nothing has to be taken off again.
bool find_shifts(const int8_t* block, int32_t quads, int16_t* shifts) {
  for (int32_t n = 0; n < kOutputBlock; ++n) {
    const auto each = [&](const auto& visit) {
      for (int32_t q = 0; q < quads; q += kShiftedGroup) {
        for (int32_t lane = n * kInputQuad / kLane; lane < (n + 1) * kInputQuad / kLane; ++lane) {
          visit(shift_range(lane_weights(block, q, kShiftedGroup, lane)),
                shifts[q / kShiftedGroup * kLanes + lane]);
        }
      }
    };
    int32_t sum = 0;
    bool possible = true;
    each([&](const Range& range, int16_t& shift) {
      possible = possible && range.low <= range.high;
      if (!possible) return;
      shift = int16_t(std::min(std::max(0, range.low), range.high));
      sum += shift;
    });
    if (!possible) return false;
    each([&](const Range& range, int16_t& shift) {
      const int32_t balanced = std::min(std::max(shift - sum, range.low), range.high);
      sum += balanced - shift;
      shift = int16_t(balanced);
    });
    if (sum != 0) return false;
  }
  return true;
}

int32_t quads_of(int32_t in) { return (in + kInputQuad - 1) / kInputQuad; }
int64_t blocks_of(int32_t out, int32_t offsets) {
  return int64_t((out + kOutputBlock - 1) / kOutputBlock) * offsets;
}

}  // namespace

int64_t int8_shift_count(int32_t out, int32_t offsets, int32_t in) {
  return blocks_of(out, offsets) * (quads_of(in) / kShiftedGroup) * kLanes;
}

void plan_int8_groups(const int8_t* packed, int32_t out, int32_t offsets, int32_t in, uint8_t* groups,
                      int16_t* shifts) {
  const int32_t quads = quads_of(in), shifts_per_block = quads / kShiftedGroup * kLanes;
  const int64_t blocks = blocks_of(out, offsets);
  for (int64_t i = 0; i < blocks;
       ++i, packed += int64_t(quads) * kLanes * kLane, shifts += shifts_per_block) {
    const auto may = [&](int32_t group) { return quads % group == 0 && fits(packed, quads, group); };
    std::fill(shifts, shifts + shifts_per_block, int16_t(0));
    if (may(8)) {
      groups[i] = 8;
    } else if (may(4)) {
      groups[i] = 4;
    } else if (quads % kShiftedGroup == 0 && find_shifts(packed, quads, shifts)) {
      groups[i] = kShiftedGroup | kShifted;
    } else {
      std::fill(shifts, shifts + shifts_per_block, int16_t(0));
      groups[i] = may(2) ? 2 : 1;
    }
  }
}

}  // namespace scn
