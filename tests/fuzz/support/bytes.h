// SPDX-License-Identifier: Apache-2.0
// Decisions read from a fuzzer's bytes: the same bytes always make the same choices.
#pragma once

#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>

namespace fuzz {

/// Bytes from front to back; zeros after the last one.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  /// What has not been read yet.
  std::string rest() const { return std::string(at_, end_); }

  uint8_t byte() { return at_ == end_ ? uint8_t(0) : *at_++; }

  uint64_t word(int bytes = 8) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= uint64_t(byte()) << (8 * i);
    return value;
  }

  /// In [0, count), count >= 1.
  uint32_t below(uint32_t count) {
    return uint32_t(word(count <= 0x100 ? 1 : count <= 0x10000 ? 2 : 4) % count);
  }

  /// In [low, high].
  int32_t between(int32_t low, int32_t high) { return low + int32_t(below(uint32_t(high - low) + 1)); }

  /// True in about `percent` of 100 cases; never once the bytes are used up.
  bool chance(uint32_t percent) { return byte() * 100u >= (100u - percent) * 256u; }

  template <typename List>
  auto& pick(List&& list) {
    return *(std::begin(list) + below(uint32_t(std::size(list))));
  }

  /// An integer where arithmetic goes wrong, or a neighbour of one.
  int64_t edge() {
    static constexpr int64_t edges[] = {
        0,
        1,
        2,
        3,
        127,
        255,
        32767,
        46341,  // its square passes 2^31
        65535,
        65536,
        int64_t(1) << 20,
        int64_t(1) << 24,
        715827883,  // a third of 2^31
        int64_t(1) << 30,
        1431655766,  // a third of 2^32
        (int64_t(1) << 31) - 1,
        int64_t(1) << 32,
        3037000500,  // its square passes 2^63
        int64_t(1) << 33,
        int64_t(1) << 40,
        int64_t(1) << 50,
        int64_t(1) << 62,
        INT64_MAX,
    };
    const uint64_t value = uint64_t(pick(edges)) + uint64_t(int64_t(below(5)) - 2);
    return int64_t(chance(25) ? 0 - value : value);
  }

  /// The same within [low, 2^31); mostly not the ends themselves, which are refused early.
  int32_t edge32(int32_t low) {
    static constexpr int32_t others[] = {INT32_MAX, 1 << 30, (1 << 30) - 1, 1 << 29,
                                         1 << 24,   46341,   65537,         3000};
    const int64_t value = edge();
    return value >= low && value <= INT32_MAX ? int32_t(value) : chance(20) ? low : pick(others);
  }

  float edge_float() {
    static constexpr float edges[] = {0.0f,    -0.0f, 1e-45f, 1e-38f,    3.7e-37f,   3.8e-37f,
                                      1e-20f,  1.0f,  2.5f,   65504.0f,  65520.0f,   1e20f,
                                      3.4e38f, -1.0f, -3e38f, kInfinity, -kInfinity, kNan};
    return pick(edges);
  }

 private:
  static constexpr float kInfinity = __builtin_inff(), kNan = __builtin_nanf("");

  const uint8_t* at_;
  const uint8_t* end_;
};

}  // namespace fuzz
