// SPDX-License-Identifier: Apache-2.0
// Numbers, texts and lists as plans have them: little-endian, lists and texts behind their length.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/utf8.h"

namespace scn {

/// Bytes that someone else keeps.
struct ByteSpan {
  const char* data = nullptr;
  size_t size = 0;
};

class ByteWriter {
 public:
  template <typename Number>
  void number(Number value) {
    static_assert(std::is_integral_v<Number>, "floats are written by their bits");
    for (size_t i = 0; i < sizeof(Number); ++i) bytes_ += char(uint64_t(value) >> 8 * i);
  }
  void number(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    number(bits);
  }
  void count(size_t value) {
    if (value > std::numeric_limits<uint32_t>::max())
      fail(ErrorKind::kArgument, "A plan holds lists of less than 2^32 entries, this has ", value, ".");
    number(uint32_t(value));
  }
  void text(const std::string& value) {
    count(value.size());
    bytes_ += value;
  }
  template <typename Number>
  void list(const std::vector<Number>& values) {
    count(values.size());
    for (const Number value : values) number(value);
  }
  void raw(const void* data, size_t size) { bytes_.append(static_cast<const char*>(data), size); }

  const std::string& bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

/// Reads what a ByteWriter wrote. Every read is checked against the end: what is no such text throws kPlan.
class ByteReader {
 public:
  explicit ByteReader(ByteSpan span) : at_(span.data), end_(span.data + span.size) {}

  template <typename Number>
  Number number() {
    const char* from = take(sizeof(Number));
    if constexpr (std::is_floating_point_v<Number>) {
      static_assert(sizeof(Number) == sizeof(uint32_t), "float32 alone");
      uint32_t bits = 0;
      for (size_t i = 0; i < sizeof(bits); ++i) bits |= uint32_t(uint8_t(from[i])) << 8 * i;
      Number value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    } else {
      uint64_t value = 0;
      for (size_t i = 0; i < sizeof(Number); ++i) value |= uint64_t(uint8_t(from[i])) << 8 * i;
      return Number(value);
    }
  }
  /// A number of entries that take `least` bytes each: as many as that are there, and no more than `most`.
  size_t count(size_t least, size_t most) {
    const size_t value = number<uint32_t>();
    if (value > most || value > left() / least) corrupt("a list that is longer than its file");
    return value;
  }
  std::string text() {
    const size_t size = count(1, left());
    const char* from = take(size);
    if (!is_utf8(from, size)) corrupt("a text that is no UTF-8");
    return std::string(from, size);
  }
  template <typename Number>
  std::vector<Number> list(size_t most) {
    std::vector<Number> values(count(sizeof(Number), most));
    for (Number& value : values) value = number<Number>();
    return values;
  }
  ByteSpan raw(size_t size) { return {take(size), size}; }

  size_t left() const { return size_t(end_ - at_); }
  void expect_end() const {
    if (at_ != end_) corrupt("bytes behind its end");
  }
  [[noreturn]] static void corrupt(const char* what) {
    fail(ErrorKind::kPlan, "The plan is damaged: it holds ", what,
         ". Copy it again, or make it again from its ONNX file.");
  }

 private:
  const char* take(size_t size) {
    if (size > left()) corrupt("less than it says");
    const char* from = at_;
    at_ += size;
    return from;
  }

  const char* at_;
  const char* end_;
};

}  // namespace scn
