// SPDX-License-Identifier: Apache-2.0
#include "onnx_mutator.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "bytes.h"
#include "model.h"
#include "protobuf.h"
#include "random_model.h"

// Of libFuzzer; the replay driver has none and never mutates.
extern "C" __attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

namespace fuzz {
namespace {

std::string random_bytes(unsigned seed, size_t size) {
  std::minstd_rand random(seed + 1);
  std::string out(size, '\0');
  for (char& byte : out) byte = char(random() >> 8);
  return out;
}

Bytes bytes_of(const std::string& from) {
  return Bytes(reinterpret_cast<const uint8_t*>(from.data()), from.size());
}

void collect(std::vector<Field>& fields, std::vector<std::pair<std::vector<Field>*, size_t>>& found) {
  for (size_t i = 0; i < fields.size(); ++i) {
    found.push_back({&fields, i});
    collect(fields[i].fields, found);
  }
}

std::vector<std::pair<std::vector<Field>*, size_t>> all_fields(std::vector<Field>& model) {
  std::vector<std::pair<std::vector<Field>*, size_t>> found;
  collect(model, found);
  return found;
}

void mutate_bytes(std::string& bytes) {
  if (!LLVMFuzzerMutate) return;
  const size_t size = bytes.size();
  bytes.resize(size + 16);
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(&bytes[0]), size, bytes.size()));
}

/// A packed list with one number replaced, added or taken away.
void mutate_varints(std::string& packed, Bytes& bytes) {
  std::vector<uint64_t> values;
  uint64_t value = 0;
  int shift = 0;
  for (const char c : packed) {
    if (shift < 64) value |= uint64_t(c & 0x7f) << shift;
    shift += 7;
    if (c & 0x80) continue;
    values.push_back(value);
    value = 0;
    shift = 0;
  }
  if (values.empty() || bytes.chance(15)) {
    values.insert(values.begin() + bytes.below(uint32_t(values.size()) + 1), uint64_t(bytes.edge()));
  } else if (bytes.chance(15)) {
    values.erase(values.begin() + bytes.below(uint32_t(values.size())));
  } else {
    bytes.pick(values) = bytes.chance(50) ? uint64_t(bytes.below(9)) : uint64_t(bytes.edge());
  }
  packed.clear();
  for (const uint64_t v : values) append_varint(packed, v);
}

void mutate_float(std::string& four, size_t at, Bytes& bytes) {
  const float value = bytes.edge_float();
  if (at + 4 <= four.size()) std::memcpy(&four[at], &value, 4);
}

/// A text of the file that another place holds: names that exist, operators, precisions.
const std::string* other_text(std::vector<Field>& model, Bytes& bytes) {
  std::vector<const std::string*> texts;
  for (const auto& [fields, at] : all_fields(model)) {
    if ((*fields)[at].content == Content::kText) texts.push_back(&(*fields)[at].bytes);
  }
  return texts.empty() ? nullptr : bytes.pick(texts);
}

void mutate_field(std::vector<Field>& model, Bytes& bytes) {
  const auto found = all_fields(model);
  if (found.empty()) return;
  const auto [fields, at] = bytes.pick(found);
  Field& field = (*fields)[at];
  switch (bytes.below(8)) {
    case 0: {
      Field copy = field;
      fields->insert(fields->begin() + bytes.below(uint32_t(fields->size()) + 1), std::move(copy));
      return;
    }
    case 1:
      fields->erase(fields->begin() + int64_t(at));
      return;
    case 2:
      std::swap(field, bytes.pick(*fields));
      return;
    default:
      break;
  }
  if (field.wire == 0) {
    field.value = bytes.chance(50) ? bytes.below(12) : uint64_t(bytes.edge());
  } else if (field.wire == 5) {
    mutate_float(field.bytes, 0, bytes);
  } else if (field.content == Content::kVarints) {
    mutate_varints(field.bytes, bytes);
  } else if (field.content == Content::kFloats && field.bytes.size() >= 4) {
    mutate_float(field.bytes, bytes.below(uint32_t(field.bytes.size() / 4)) * 4, bytes);
  } else if (field.content == Content::kText && bytes.chance(70)) {
    const std::string* text = other_text(model, bytes);
    if (text) field.bytes = std::string(*text);
  } else {
    mutate_bytes(field.bytes);
  }
}

size_t put(const std::string& from, uint8_t* out, size_t most) {
  const size_t size = std::min(from.size(), most);
  std::memcpy(out, from.data(), size);
  return size;
}

/// A model of the builder, with choices for its frames.
std::string built(Bytes& bytes, unsigned seed) {
  std::string onnx = write_onnx(bytes.chance(70) ? random_model(bytes, false) : any_model(bytes));
  append_bytes(onnx, kChoices, random_bytes(seed + 2, 48));
  return onnx;
}

}  // namespace

std::string frame_choices(const std::string& onnx) {
  uint32_t hash = 2166136261u;
  for (const char c : onnx) hash = (hash ^ uint8_t(c)) * 16777619u;
  for (const Field& field : parse(onnx, Content::kModel)) {
    if (field.number == kChoices && field.wire == 2) return field.bytes;
  }
  return random_bytes(hash, 48);
}

size_t mutate_onnx(uint8_t* data, size_t size, size_t most, unsigned seed) {
  const std::string random = random_bytes(seed, 512);
  Bytes bytes = bytes_of(random);
  const uint32_t kind = bytes.below(16);
  if (kind == 0 && LLVMFuzzerMutate) return LLVMFuzzerMutate(data, size, most);
  if (kind < 4 || size == 0) {
    const std::string onnx = built(bytes, seed);
    if (onnx.size() <= most) return put(onnx, data, most);
  }
  std::vector<Field> model = parse(std::string(reinterpret_cast<const char*>(data), size), Content::kModel);
  if (kind < 7) {  // other options and frames for the same file
    model.erase(
        std::remove_if(model.begin(), model.end(), [](const Field& f) { return f.number == kChoices; }),
        model.end());
    Field choices;
    choices.number = kChoices;
    choices.wire = 2;
    choices.bytes = random_bytes(seed + 2, 48);
    model.push_back(std::move(choices));
  } else {
    for (int count = bytes.chance(75) ? 1 : bytes.between(2, 4); count > 0; --count)
      mutate_field(model, bytes);
  }
  return put(serialise(model), data, most);
}

size_t splice_onnx(const std::string& first, const std::string& second, uint8_t* out, size_t most,
                   unsigned seed) {
  const std::string random = random_bytes(seed, 64);
  Bytes bytes = bytes_of(random);
  std::vector<Field> model = parse(first, Content::kModel), other = parse(second, Content::kModel);
  const auto places = all_fields(model), sources = all_fields(other);
  if (places.empty() || sources.empty()) return put(first, out, most);
  const auto [fields, at] = bytes.pick(places);
  Field& place = (*fields)[at];
  std::vector<const Field*> fitting;
  for (const auto& [from, index] : sources) {
    const Field& field = (*from)[index];
    if (field.content == place.content && field.wire == place.wire && field.number == place.number)
      fitting.push_back(&field);
  }
  if (!fitting.empty()) place = *bytes.pick(fitting);
  return put(serialise(model), out, most);
}

}  // namespace fuzz
