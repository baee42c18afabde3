// SPDX-License-Identifier: Apache-2.0
#include "protobuf.h"

#include <cstring>

namespace fuzz {
namespace {

Content content_of(Content message, uint32_t number) {
  switch (message) {
    case Content::kModel:
      return number == 7                   ? Content::kGraph
             : number == 8 || number == 14 ? Content::kEntry
             : number == 2 || number == 3  ? Content::kText
                                           : Content::kRaw;
    case Content::kGraph:
      return number == 1                    ? Content::kNode
             : number == 5                  ? Content::kTensor
             : number == 11 || number == 12 ? Content::kValue
             : number == 16                 ? Content::kEntry
                                            : Content::kText;
    case Content::kNode:
      return number == 5 ? Content::kAttribute : Content::kText;
    case Content::kAttribute:
      return number == 7 ? Content::kFloats : number == 8 ? Content::kVarints : Content::kText;
    case Content::kTensor:
      return number == 1 || number == 5 ? Content::kVarints
             : number == 4              ? Content::kFloats
             : number == 8              ? Content::kText
                                        : Content::kRaw;
    default:
      return Content::kText;
  }
}

bool read_varint(const char*& at, const char* end, uint64_t* value) {
  *value = 0;
  for (int shift = 0; at != end && shift < 64; shift += 7) {
    const uint8_t byte = uint8_t(*at++);
    *value |= uint64_t(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return true;
  }
  return false;
}

}  // namespace

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
  out += char(value);
}

void append_integer(std::string& out, uint32_t field, uint64_t value) {
  append_varint(out, uint64_t(field) << 3);
  append_varint(out, value);
}

void append_fixed32(std::string& out, uint32_t field, float value) {
  append_varint(out, uint64_t(field) << 3 | 5);
  char bytes[4];
  std::memcpy(bytes, &value, 4);
  out.append(bytes, 4);
}

void append_bytes(std::string& out, uint32_t field, const std::string& bytes) {
  append_varint(out, uint64_t(field) << 3 | 2);
  append_varint(out, bytes.size());
  out += bytes;
}

std::vector<Field> parse(const std::string& message, Content content) {
  std::vector<Field> fields;
  const char *at = message.data(), *end = at + message.size();
  uint64_t tag = 0, size = 0;
  while (read_varint(at, end, &tag)) {
    Field field;
    field.number = uint32_t(tag >> 3);
    field.wire = uint32_t(tag & 7);
    if (field.wire == 0) {
      if (!read_varint(at, end, &field.value)) break;
    } else {
      size = field.wire == 1 ? 8 : 4;
      if (field.wire == 2 && !read_varint(at, end, &size)) break;
      if (field.wire > 2 && field.wire != 5) break;
      if (size > uint64_t(end - at)) size = uint64_t(end - at);
      field.bytes.assign(at, size_t(size));
      at += size;
      if (field.wire == 2) field.content = content_of(content, field.number);
      if (is_message(field.content)) field.fields = parse(field.bytes, field.content);
    }
    fields.push_back(std::move(field));
  }
  return fields;
}

std::string serialise(const std::vector<Field>& fields) {
  std::string out;
  for (const Field& field : fields) {
    append_varint(out, uint64_t(field.number) << 3 | field.wire);
    if (field.wire == 0) {
      append_varint(out, field.value);
      continue;
    }
    const std::string bytes = is_message(field.content) ? serialise(field.fields) : field.bytes;
    if (field.wire == 2) append_varint(out, bytes.size());
    out += bytes;
  }
  return out;
}

}  // namespace fuzz
