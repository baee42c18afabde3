// SPDX-License-Identifier: Apache-2.0
// The protobuf wire format, written, and taken apart into a tree of fields that can be put together again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fuzz {

void append_varint(std::string& out, uint64_t value);
void append_integer(std::string& out, uint32_t field, uint64_t value);
void append_fixed32(std::string& out, uint32_t field, float value);
void append_bytes(std::string& out, uint32_t field, const std::string& bytes);

/// What the bytes of a field hold, as onnx.proto says.
enum class Content {
  kUnknown,
  kText,
  kRaw,
  kVarints,
  kFloats,
  kModel,
  kGraph,
  kNode,
  kAttribute,
  kTensor,
  kValue,
  kEntry
};

inline bool is_message(Content content) { return content >= Content::kModel; }

/// One field of a message. Messages keep their fields, everything else of variable length its bytes.
struct Field {
  uint32_t number = 0;
  uint32_t wire = 0;  // 0: value; 1, 5: bytes of that width; 2: fields or bytes
  Content content = Content::kUnknown;
  uint64_t value = 0;
  std::string bytes;
  std::vector<Field> fields;
};

/// The fields of a message; what cannot be read at its end is left out.
std::vector<Field> parse(const std::string& message, Content content);
/// The message of these fields; lengths follow from what the fields hold now.
std::string serialise(const std::vector<Field>& fields);

}  // namespace fuzz
