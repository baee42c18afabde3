// SPDX-License-Identifier: Apache-2.0
#include "onnx/model.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "onnx/regular_file.h"
#include "onnx/wire.h"

namespace scn {
namespace {

constexpr int64_t kMostBytes = (int64_t(1) << 31) - 1;  // of a protobuf message
// Lists are counted as they are read: empty entries take two bytes of a file, and a hundred times that here.
constexpr size_t kMostEntries = 1 << 16;    // of a graph or a node: nodes, names, attributes, initializers
constexpr size_t kMostIntegers = 1 << 16;   // of an attribute; tensors may have as many as their data
constexpr size_t kMostAttributes = 1 << 7;  // of a node, which are looked for one by one
constexpr size_t kMostAxes = 64;            // of a tensor

void check_count(size_t count, size_t most, const char* what) {
  if (count >= most) {
    fail(ErrorKind::kOnnx, "The model holds more than ", most, " ", what,
         ", far more than a network has. The file is damaged, or was not made for this engine.");
  }
}

std::pair<std::string, std::string> read_entry(WireReader in) {
  std::pair<std::string, std::string> entry;
  while (in.next()) {
    if (in.field() == 1)
      entry.first = in.text();
    else if (in.field() == 2)
      entry.second = in.text();
    else
      in.skip();
  }
  return entry;
}

std::pair<std::string, int64_t> read_opset(WireReader in) {
  std::pair<std::string, int64_t> opset;
  while (in.next()) {
    if (in.field() == 1)
      opset.first = in.text();
    else if (in.field() == 2)
      opset.second = in.integer();
    else
      in.skip();
  }
  return opset;
}

void read_ints(WireReader& in, std::vector<int64_t>& out, size_t most, const char* what) {
  if (!in.is_bytes()) {
    check_count(out.size(), most, what);
    out.push_back(in.integer());
    return;
  }
  WireReader packed = in.bytes();
  while (!packed.done()) {
    check_count(out.size(), most, what);
    out.push_back(int64_t(packed.varint()));
  }
}

void read_floats(WireReader& in, std::vector<float>& out) {
  if (!in.is_bytes()) {
    out.push_back(in.fixed32());
    return;
  }
  WireReader packed = in.bytes();
  while (!packed.done()) out.push_back(packed.packed_float());
}

OnnxAttribute read_attribute(WireReader in) {
  OnnxAttribute a;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        a.name = in.text();
        break;
      case 2:
        a.f = in.fixed32();
        break;
      case 3:
        a.i = in.integer();
        break;
      case 4:
        a.s = in.text();
        break;
      case 7:
        read_floats(in, a.floats);
        break;
      case 8:
        read_ints(in, a.ints, kMostIntegers, "integers in one attribute");
        break;
      case 9:
        check_count(a.strings.size(), kMostEntries, "strings in one attribute");
        a.strings.push_back(in.text());
        break;
      case 20:
        a.type = AttributeType(in.number32());
        break;
      default:
        in.skip();
    }
  }
  return a;
}

OnnxNode read_node(WireReader in) {
  OnnxNode node;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        check_count(node.inputs.size(), kMostEntries, "inputs of one node");
        node.inputs.push_back(in.text());
        break;
      case 2:
        check_count(node.outputs.size(), kMostEntries, "outputs of one node");
        node.outputs.push_back(in.text());
        break;
      case 3:
        node.name = in.text();
        break;
      case 4:
        node.op_type = in.text();
        break;
      case 5:
        check_count(node.attributes.size(), kMostAttributes, "attributes of one node");
        node.attributes.push_back(read_attribute(in.bytes()));
        break;
      case 7:
        node.domain = in.text();
        break;
      default:
        in.skip();
    }
  }
  for (size_t i = 0; i < node.attributes.size(); ++i) {
    if (node.find(node.attributes[i].name) != &node.attributes[i]) {
      fail(ErrorKind::kOnnx, node.op_type, " '", node.name, "': attribute '", node.attributes[i].name,
           "' is there twice. Export the model again.");
    }
  }
  return node;
}

OnnxTensor read_tensor(WireReader in) {
  OnnxTensor t;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        read_ints(in, t.dims, kMostAxes, "dimensions of one tensor");
        break;
      case 2:
        t.data_type = in.number32();
        break;
      case 4:
        read_floats(in, t.float_data);
        break;
      case 5:
        read_ints(in, t.int32_data, size_t(kMostBytes), "numbers in one tensor");
        break;
      case 8:
        t.name = in.text();
        break;
      case 9: {
        const WireReader raw = in.bytes();
        t.raw = raw.data();
        t.raw_size = raw.size();
        break;
      }
      case 14:
        t.external = in.integer() == 1;
        break;
      default:
        in.skip();
    }
  }
  return t;
}

std::string read_value_name(WireReader in) {
  std::string name;
  while (in.next()) {
    if (in.field() == 1)
      name = in.text();
    else
      in.skip();
  }
  return name;
}

void read_graph(WireReader in, OnnxModel& model) {
  while (in.next()) {
    switch (in.field()) {
      case 1:
        check_count(model.nodes.size(), kMostEntries, "nodes");
        model.nodes.push_back(read_node(in.bytes()));
        break;
      case 5: {
        check_count(model.initializers.size(), kMostEntries, "initializers");
        OnnxTensor t = read_tensor(in.bytes());
        const std::string name = t.name;
        if (!model.initializers.emplace(name, std::move(t)).second) {
          fail(ErrorKind::kOnnx, "The model has two initializers named '", name,
               "', so nobody can say which a node reads. Export the model again.");
        }
        break;
      }
      case 11:
        check_count(model.inputs.size(), kMostEntries, "inputs");
        model.inputs.push_back(read_value_name(in.bytes()));
        break;
      case 12:
        check_count(model.outputs.size(), kMostEntries, "outputs");
        model.outputs.push_back(read_value_name(in.bytes()));
        break;
      case 16:
        check_count(model.metadata.size(), kMostEntries, "entries of metadata");
        model.metadata.insert(read_entry(in.bytes()));
        break;
      default:
        in.skip();
    }
  }
}

}  // namespace

const char* onnx_type_name(int32_t data_type) {
  static const char* const names[] = {"no type", "float32", "uint8",     "int8",       "uint16",  "int16",
                                      "int32",   "int64",   "string",    "bool",       "float16", "float64",
                                      "uint32",  "uint64",  "complex64", "complex128", "bfloat16"};
  const bool known = data_type >= 0 && data_type < int32_t(sizeof(names) / sizeof(names[0]));
  return known ? names[data_type] : "a type unknown here";
}

const OnnxAttribute* OnnxNode::find(const std::string& attribute) const {
  for (const OnnxAttribute& a : attributes) {
    if (a.name == attribute) return &a;
  }
  return nullptr;
}

OnnxModel parse_onnx(std::string bytes) {
  if (bytes.empty()) fail(ErrorKind::kOnnx, "The ONNX model is empty (0 bytes). Export it again.");
  OnnxModel model;
  model.buffer = std::move(bytes);
  bool has_graph = false;
  WireReader in(model.buffer.data(), model.buffer.size());
  while (in.next()) {
    switch (in.field()) {
      case 1:
        model.ir_version = in.integer();
        break;
      case 2:
        model.producer_name = in.text();
        break;
      case 3:
        model.producer_version = in.text();
        break;
      case 7:
        has_graph = true;
        read_graph(in.bytes(), model);
        break;
      case 8:
        check_count(model.opsets.size(), kMostEntries, "opsets");
        model.opsets.push_back(read_opset(in.bytes()));
        break;
      case 14: {
        check_count(model.metadata.size(), kMostEntries, "entries of metadata");
        const auto entry = read_entry(in.bytes());
        model.metadata[entry.first] = entry.second;
        break;
      }
      default:
        in.skip();
    }
  }
  if (!has_graph || model.ir_version == 0) {
    fail(ErrorKind::kOnnx, "Not an ONNX model: it has no ", has_graph ? "IR version" : "graph",
         ". Expected a file written by torch.onnx.export.");
  }
  // Up to IR version 3 every initializer is listed as an input too.
  auto& inputs = model.inputs;
  inputs.erase(std::remove_if(inputs.begin(), inputs.end(),
                              [&](const std::string& n) { return model.initializers.count(n) > 0; }),
               inputs.end());
  return model;
}

OnnxModel load_onnx(const std::string& path) {
  try {
    return parse_onnx(read_regular_file(path, kMostBytes));
  } catch (const Error& e) {
    fail(e.kind(), path, ": ", e.what());
  }
}

}  // namespace scn
