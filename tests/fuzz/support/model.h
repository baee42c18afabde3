// SPDX-License-Identifier: Apache-2.0
// A network of the libspconv dialect as its ONNX file holds it, to be changed anywhere and written.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace fuzz {

using Triple = std::array<int32_t, 3>;  // (z, y, x)

/// ONNX's numbers of attribute and tensor types.
enum : int32_t { kFloat = 1, kInt = 2, kString = 3, kFloats = 6, kInts = 7 };
enum : int32_t { kFloat32Tensor = 1, kFloat16Tensor = 10 };

struct Attribute {
  std::string name;
  int32_t type = 0;
  int64_t i = 0;
  float f = 0.0f;
  std::string s;
  std::vector<int64_t> ints;
  std::vector<float> floats;
};

struct Node {
  std::string op_type, name;
  std::vector<std::string> inputs, outputs;
  std::vector<Attribute> attributes;

  Node& integer(const char* attribute, int64_t value);
  Node& number(const char* attribute, float value);
  Node& text(const char* attribute, const std::string& value);
  Node& integers(const char* attribute, std::vector<int64_t> values);
  Node& numbers(const char* attribute, std::vector<float> values);
};

struct Tensor {
  std::string name;
  int32_t type = kFloat16Tensor;
  std::vector<int64_t> dims;
  std::string raw;
};

struct Model {
  std::vector<Node> nodes;
  std::vector<Tensor> tensors;
  std::vector<std::string> inputs{"features"}, outputs;
};

std::string write_onnx(const Model& model);

}  // namespace fuzz
