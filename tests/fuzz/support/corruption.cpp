// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "random_model.h"

namespace fuzz {
namespace {

const std::string& word(Bytes& bytes) {
  static const std::string words[] = {"",
                                      "int8",
                                      "fp16",
                                      "fp32",
                                      "ReLU",
                                      "None",
                                      "zyx",
                                      "xyz",
                                      "features",
                                      "x",
                                      "Add",
                                      "Relu",
                                      "Reshape",
                                      "Transpose",
                                      "ScatterDense",
                                      "SparseConvolution",
                                      "QuantAdd",
                                      "Softmax",
                                      std::string("a\0b", 3),
                                      "\xff\xfe",
                                      std::string(3000, 'n')};
  return bytes.pick(words);
}

/// A name of the model, or any word.
std::string name_of(const Model& model, Bytes& bytes) {
  if (model.nodes.empty() || bytes.chance(30)) return word(bytes);
  const Node& node = bytes.pick(model.nodes);
  const std::vector<std::string>& names = bytes.chance(50) ? node.outputs : node.inputs;
  return names.empty() ? node.name : bytes.pick(names);
}

/// Repeats, drops or swaps an element of a list.
template <typename List>
void rearrange(List& list, Bytes& bytes) {
  if (list.empty()) return;
  const auto at = list.begin() + bytes.below(uint32_t(list.size()));
  switch (bytes.below(3)) {
    case 0: {
      auto copy = *at;
      list.insert(list.begin() + bytes.below(uint32_t(list.size()) + 1), std::move(copy));
      break;
    }
    case 1:
      list.erase(at);
      break;
    default:
      std::swap(*at, bytes.pick(list));
  }
}

void corrupt_integers(std::vector<int64_t>& values, Bytes& bytes) {
  if (values.empty() || bytes.chance(20)) {
    rearrange(values, bytes);
  } else {
    bytes.pick(values) = bytes.edge();
  }
}

void corrupt_attribute(Attribute& a, Bytes& bytes) {
  switch (bytes.below(6)) {
    case 5:
      a.type = bytes.chance(50) ? int32_t(bytes.below(12)) : int32_t(bytes.edge());
      break;
    case 4:
      a.name = bytes.chance(50) ? word(bytes) : "stride";
      break;
    default:
      a.i = bytes.edge();
      a.f = bytes.edge_float();
      if (a.type == kString) a.s = word(bytes);
      if (a.type == kInts) corrupt_integers(a.ints, bytes);
      if (a.type == kFloats && !a.floats.empty()) bytes.pick(a.floats) = bytes.edge_float();
      if (a.type == kFloats && bytes.chance(20)) rearrange(a.floats, bytes);
  }
}

void corrupt_node(Model& model, Bytes& bytes) {
  Node& node = bytes.pick(model.nodes);
  const auto end = [&](std::vector<std::string>& names) {
    if (names.empty() || bytes.chance(20)) return rearrange(names, bytes);
    bytes.pick(names) = name_of(model, bytes);
  };
  switch (bytes.below(8)) {
    case 7:
      node.op_type = word(bytes);
      break;
    case 1:
      end(node.inputs);
      break;
    case 2:
      end(node.outputs);
      break;
    case 3:
      node.name = name_of(model, bytes);
      break;
    case 4:
      rearrange(node.attributes, bytes);
      break;
    default:
      if (!node.attributes.empty()) corrupt_attribute(bytes.pick(node.attributes), bytes);
  }
}

void corrupt_tensor(Tensor& tensor, Bytes& bytes) {
  switch (bytes.below(6)) {
    case 0:
      corrupt_integers(tensor.dims, bytes);
      break;
    case 1:
      tensor.type = bytes.chance(50) ? int32_t(bytes.below(20)) : int32_t(bytes.edge());
      break;
    case 2:
      tensor.name = word(bytes);
      break;
    case 3:
      tensor.raw.resize(bytes.below(uint32_t(tensor.raw.size()) + 8));
      break;
    default:  // NaN, infinity, the largest, a subnormal
      if (tensor.raw.size() >= 2) {
        static constexpr uint16_t values[] = {0x7e00, 0x7c00, 0xfc00, 0x7bff, 0x0001, 0x8000};
        const uint16_t value = bytes.pick(values);
        const size_t at = bytes.below(uint32_t(tensor.raw.size() / 2)) * 2;
        tensor.raw[at] = char(value & 0xff);
        tensor.raw[at + 1] = char(value >> 8);
      }
  }
}

}  // namespace

void corrupt(Model& model, Bytes& bytes) {
  // zero is what bytes say that are used up: the most fruitful kind comes first
  const uint32_t kind = bytes.below(16);
  if (kind < 10) {
    if (!model.nodes.empty()) corrupt_node(model, bytes);
  } else if (kind < 12) {
    if (!model.tensors.empty()) corrupt_tensor(bytes.pick(model.tensors), bytes);
  } else if (kind == 12) {
    rearrange(model.nodes, bytes);
  } else if (kind == 13) {
    rearrange(model.tensors, bytes);
  } else if (kind == 14) {
    rearrange(bytes.chance(50) ? model.outputs : model.inputs, bytes);
  } else {
    model.outputs.push_back(name_of(model, bytes));
  }
}

}  // namespace fuzz
