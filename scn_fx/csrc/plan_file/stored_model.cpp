// SPDX-License-Identifier: Apache-2.0
#include "plan_file/stored_model.h"

#include "plan/initializers.h"
#include "scn_fx/half.h"

namespace scn {
namespace {

// As onnx/model.cpp has them.
constexpr size_t kMostEntries = 1 << 16;
constexpr size_t kMostAttributes = 1 << 7;
constexpr size_t kMostAxes = 64;
constexpr size_t kAnyNumber = ~size_t(0);
// Bytes that each takes at least: an empty text or list, and what is made of them.
constexpr size_t kLeast = sizeof(uint32_t);
constexpr size_t kLeastAttribute = 2 * kLeast;
constexpr size_t kLeastNode = 6 * kLeast;

void write_texts(const std::vector<std::string>& texts, ByteWriter& out) {
  out.count(texts.size());
  for (const std::string& text : texts) out.text(text);
}

std::vector<std::string> read_texts(ByteReader& in) {
  std::vector<std::string> texts(in.count(kLeast, kMostEntries));
  for (std::string& text : texts) text = in.text();
  return texts;
}

void write_attribute(const OnnxAttribute& a, ByteWriter& out) {
  out.text(a.name);
  out.number(int32_t(a.type));
  switch (a.type) {
    case AttributeType::kFloat:
      return out.number(a.f);
    case AttributeType::kInt:
      return out.number(a.i);
    case AttributeType::kString:
      return out.text(a.s);
    case AttributeType::kFloats:
      return out.list(a.floats);
    case AttributeType::kInts:
      return out.list(a.ints);
    case AttributeType::kStrings:
      return write_texts(a.strings, out);
    default:  // no operator reads it
      return;
  }
}

OnnxAttribute read_attribute(ByteReader& in) {
  OnnxAttribute a;
  a.name = in.text();
  a.type = AttributeType(in.number<int32_t>());
  switch (a.type) {
    case AttributeType::kFloat:
      a.f = in.number<float>();
      break;
    case AttributeType::kInt:
      a.i = in.number<int64_t>();
      break;
    case AttributeType::kString:
      a.s = in.text();
      break;
    case AttributeType::kFloats:
      a.floats = in.list<float>(kAnyNumber);
      break;
    case AttributeType::kInts:
      a.ints = in.list<int64_t>(kMostEntries);
      break;
    case AttributeType::kStrings:
      a.strings = read_texts(in);
      break;
    default:
      break;
  }
  return a;
}

void write_node(const OnnxNode& node, ByteWriter& out) {
  out.text(node.name);
  out.text(node.op_type);
  out.text(node.domain);
  write_texts(node.inputs, out);
  write_texts(node.outputs, out);
  out.count(node.attributes.size());
  for (const OnnxAttribute& a : node.attributes) write_attribute(a, out);
}

OnnxNode read_node(ByteReader& in) {
  OnnxNode node;
  node.name = in.text();
  node.op_type = in.text();
  node.domain = in.text();
  node.inputs = read_texts(in);
  node.outputs = read_texts(in);
  node.attributes.resize(in.count(kLeastAttribute, kMostAttributes));
  for (OnnxAttribute& a : node.attributes) a = read_attribute(in);
  return node;
}

/// The values as raw_data has them, however the ONNX file stores them.
std::string raw_values(const OnnxTensor& tensor, const std::string& label) {
  ByteWriter out;
  for (const float value : initializer_values(tensor, label, "values")) {
    if (tensor.data_type == kOnnxFloat16)
      out.number(float_to_half(value));
    else
      out.number(value);
  }
  return out.take();
}

/// Whether a layer computes with it; others are names alone.
bool is_weight(const OnnxModel& model, const std::string& name) {
  for (const OnnxNode& node : model.nodes) {
    for (size_t i = 1; i < node.inputs.size() && node.op_type == "SparseConvolution"; ++i) {
      if (node.inputs[i] == name) return true;
    }
  }
  return false;
}

}  // namespace

void write_model(const OnnxModel& model, bool weights, ByteWriter& out) {
  out.number(model.ir_version);
  out.text(model.producer_name);
  out.text(model.producer_version);
  out.count(model.opsets.size());
  for (const auto& [domain, version] : model.opsets) {
    out.text(domain);
    out.number(version);
  }
  out.count(model.metadata.size());
  for (const auto& [key, value] : model.metadata) {
    out.text(key);
    out.text(value);
  }
  write_texts(model.inputs, out);
  write_texts(model.outputs, out);
  out.count(model.nodes.size());
  for (const OnnxNode& node : model.nodes) write_node(node, out);
  out.count(model.initializers.size());
  for (const auto& [name, tensor] : model.initializers) {
    out.text(name);
    out.number(tensor.data_type);
    out.list(tensor.dims);
    const bool values = weights && is_weight(model, name);
    out.number(uint8_t(values));
    if (values) out.text(raw_values(tensor, name));
  }
}

void read_model(ByteReader& in, OnnxModel& model) {
  model.ir_version = in.number<int64_t>();
  model.producer_name = in.text();
  model.producer_version = in.text();
  model.opsets.resize(in.count(kLeast + sizeof(int64_t), kMostEntries));
  for (auto& [domain, version] : model.opsets) {
    domain = in.text();
    version = in.number<int64_t>();
  }
  for (size_t left = in.count(2 * kLeast, kMostEntries); left > 0; --left) {
    std::string key = in.text();
    model.metadata[std::move(key)] = in.text();
  }
  model.inputs = read_texts(in);
  model.outputs = read_texts(in);
  model.nodes.resize(in.count(kLeastNode, kMostEntries));
  for (OnnxNode& node : model.nodes) node = read_node(in);
  for (size_t left = in.count(3 * kLeast + 1, kMostEntries); left > 0; --left) {
    OnnxTensor tensor;
    tensor.name = in.text();
    tensor.data_type = in.number<int32_t>();
    tensor.dims = in.list<int64_t>(kMostAxes);
    tensor.prepared = !in.number<uint8_t>();
    if (!tensor.prepared) {
      const ByteSpan raw = in.raw(in.count(1, kAnyNumber));
      tensor.raw = raw.data;
      tensor.raw_size = raw.size;
    }
    std::string name = tensor.name;
    model.initializers.emplace(std::move(name), std::move(tensor));
  }
}

}  // namespace scn
