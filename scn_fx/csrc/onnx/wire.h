// SPDX-License-Identifier: Apache-2.0
// The protobuf wire format: tagged varints, fixed-width numbers and length-delimited bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/utf8.h"

namespace scn {

/// Reads the fields of one message. Every read is checked against the end of the message.
class WireReader {
 public:
  WireReader(const char* data, size_t size) : at_(data), end_(data + size) {}

  /// Moves to the next field; false at the end of the message.
  bool next() {
    if (at_ == end_) return false;
    const uint64_t tag = varint();
    if (tag >> 3 == 0 || tag >> 3 > kMostField) corrupt("a field number that protobuf does not have");
    field_ = int(tag >> 3);
    type_ = int(tag & 7);
    return true;
  }

  int field() const { return field_; }
  bool is_bytes() const { return type_ == 2; }

  int64_t integer() {
    expect(0);
    return int64_t(varint());
  }

  /// An integer that the format declares with 32 bits.
  int32_t number32() {
    const int64_t number = integer();
    if (number < std::numeric_limits<int32_t>::min() || number > std::numeric_limits<int32_t>::max())
      corrupt("a number of more than 32 bits where the format has 32");
    return int32_t(number);
  }

  float fixed32() {
    expect(5);
    float value;
    std::memcpy(&value, take(4), 4);
    return value;
  }

  WireReader bytes() {
    expect(2);
    const uint64_t size = varint();
    if (size > uint64_t(end_ - at_)) corrupt("a length beyond the end of its message: the file is truncated");
    const char* data = take(size_t(size));
    return WireReader(data, size_t(size));
  }

  std::string text() {
    const WireReader inner = bytes();
    if (!is_utf8(inner.at_, inner.size())) corrupt("a name that is no UTF-8 text: the file is damaged");
    return std::string(inner.at_, inner.size());
  }

  const char* data() const { return at_; }
  size_t size() const { return size_t(end_ - at_); }
  bool done() const { return at_ == end_; }

  /// One value of a packed array.
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = uint8_t(*take(1));
      if (shift == 63 && byte > 1) break;  // only its lowest bit is left
      value |= uint64_t(byte & 0x7f) << shift;
      if (!(byte & 0x80)) return value;
    }
    corrupt("a number of more than 64 bits");
  }

  float packed_float() {
    float value;
    std::memcpy(&value, take(4), 4);
    return value;
  }

  void skip() {
    switch (type_) {
      case 0:
        varint();
        return;
      case 1:
        take(8);
        return;
      case 2:
        bytes();
        return;
      case 5:
        take(4);
        return;
      default:
        corrupt("an unknown wire type");
    }
  }

 private:
  static constexpr uint64_t kMostField = (uint64_t(1) << 29) - 1;  // of protobuf

  const char* take(size_t count) {
    if (count > size_t(end_ - at_)) corrupt("a value beyond the end of its message: the file is truncated");
    const char* data = at_;
    at_ += count;
    return data;
  }

  void expect(int type) {
    if (type_ != type) corrupt("a field of another type than onnx.proto gives it");
  }

  [[noreturn]] void corrupt(const char* what) {
    fail(ErrorKind::kOnnx, "Not a readable ONNX model: it holds ", what, ". Export or copy the file again.");
  }

  const char* at_;
  const char* end_;
  int field_ = 0, type_ = 0;
};

}  // namespace scn
