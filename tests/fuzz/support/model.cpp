// SPDX-License-Identifier: Apache-2.0
#include "model.h"

#include <utility>

#include "protobuf.h"

namespace fuzz {
namespace {

Attribute& added(Node& node, const char* name, int32_t type) {
  node.attributes.emplace_back();
  node.attributes.back().name = name;
  node.attributes.back().type = type;
  return node.attributes.back();
}

std::string attribute_message(const Attribute& a) {
  std::string out;
  append_bytes(out, 1, a.name);
  if (a.type == kFloat) append_fixed32(out, 2, a.f);
  if (a.type == kInt) append_integer(out, 3, uint64_t(a.i));
  if (a.type == kString) append_bytes(out, 4, a.s);
  // onnx.proto declares both lists unpacked, and so are they written
  for (const float value : a.floats) append_fixed32(out, 7, value);
  for (const int64_t value : a.ints) append_integer(out, 8, uint64_t(value));
  append_integer(out, 20, uint64_t(int64_t(a.type)));
  return out;
}

std::string node_message(const Node& node) {
  std::string out;
  for (const std::string& name : node.inputs) append_bytes(out, 1, name);
  for (const std::string& name : node.outputs) append_bytes(out, 2, name);
  append_bytes(out, 3, node.name);
  append_bytes(out, 4, node.op_type);
  for (const Attribute& a : node.attributes) append_bytes(out, 5, attribute_message(a));
  append_bytes(out, 7, "scn_fx");
  return out;
}

std::string tensor_message(const Tensor& tensor) {
  std::string out, dims;
  for (const int64_t d : tensor.dims) append_varint(dims, uint64_t(d));
  append_bytes(out, 1, dims);
  append_integer(out, 2, uint64_t(int64_t(tensor.type)));
  append_bytes(out, 8, tensor.name);
  append_bytes(out, 9, tensor.raw);
  return out;
}

std::string value_message(const std::string& name) {
  std::string out;
  append_bytes(out, 1, name);
  return out;
}

}  // namespace

Node& Node::integer(const char* attribute, int64_t value) {
  added(*this, attribute, kInt).i = value;
  return *this;
}

Node& Node::number(const char* attribute, float value) {
  added(*this, attribute, kFloat).f = value;
  return *this;
}

Node& Node::text(const char* attribute, const std::string& value) {
  added(*this, attribute, kString).s = value;
  return *this;
}

Node& Node::integers(const char* attribute, std::vector<int64_t> values) {
  added(*this, attribute, kInts).ints = std::move(values);
  return *this;
}

Node& Node::numbers(const char* attribute, std::vector<float> values) {
  added(*this, attribute, kFloats).floats = std::move(values);
  return *this;
}

std::string write_onnx(const Model& model) {
  std::string graph;
  for (const Node& node : model.nodes) append_bytes(graph, 1, node_message(node));
  for (const Tensor& tensor : model.tensors) append_bytes(graph, 5, tensor_message(tensor));
  for (const std::string& name : model.inputs) append_bytes(graph, 11, value_message(name));
  for (const std::string& name : model.outputs) append_bytes(graph, 12, value_message(name));
  std::string out, opset;
  append_integer(out, 1, 8);
  append_bytes(out, 7, graph);
  append_bytes(opset, 1, "scn_fx");
  append_integer(opset, 2, 1);
  append_bytes(out, 8, opset);
  return out;
}

}  // namespace fuzz
