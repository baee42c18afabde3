// SPDX-License-Identifier: Apache-2.0
// An ONNX file as its protobuf says it, read without the protobuf library. Field numbers are those of
// onnx.proto.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace scn {

enum class AttributeType : int32_t {
  kUnset = 0,
  kFloat = 1,
  kInt = 2,
  kString = 3,
  kFloats = 6,
  kInts = 7,
  kStrings = 8
};

struct OnnxAttribute {
  std::string name;
  AttributeType type = AttributeType::kUnset;  // other types of the format keep their number
  float f = 0.0f;
  int64_t i = 0;
  std::string s;
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string> strings;
};

struct OnnxNode {
  std::string name, op_type, domain;
  std::vector<std::string> inputs, outputs;
  std::vector<OnnxAttribute> attributes;

  const OnnxAttribute* find(const std::string& attribute) const;
};

constexpr int32_t kOnnxFloat = 1, kOnnxFloat16 = 10;

/// The name of a tensor's data type, as "float16"; "a type unknown here" for those that are rare.
const char* onnx_type_name(int32_t data_type);

struct OnnxTensor {
  std::string name;
  int32_t data_type = 0;
  std::vector<int64_t> dims;
  bool external = false;
  bool prepared = false;      // of a plan: layers have the values in another form
  const char* raw = nullptr;  // points into the model's buffer
  size_t raw_size = 0;
  // Where a writer chose them instead of raw bytes. float16 values stand in int32_data, as their bits.
  std::vector<int64_t> int32_data;
  std::vector<float> float_data;
};

struct StoredPlan;

struct OnnxModel {
  OnnxModel() = default;
  // Tensors point into the buffer. Moving keeps it in place: a file is longer than what a string stores in
  // itself.
  OnnxModel(const OnnxModel&) = delete;
  OnnxModel& operator=(const OnnxModel&) = delete;
  OnnxModel(OnnxModel&&) = default;
  OnnxModel& operator=(OnnxModel&&) = default;

  std::string buffer;
  int64_t ir_version = 0;
  std::string producer_name, producer_version;
  std::vector<std::pair<std::string, int64_t>> opsets;
  std::map<std::string, std::string> metadata;  // of the model and of its graph
  std::vector<std::string> inputs, outputs;     // inputs without initializers
  std::vector<OnnxNode> nodes;
  std::map<std::string, OnnxTensor> initializers;

  /// Set if a plan said all this, which then is no ONNX file.
  std::shared_ptr<const StoredPlan> plan;
};

/// Parses the bytes of a file. Throws kOnnx for what is empty, truncated or no ONNX model.
OnnxModel parse_onnx(std::string bytes);

/// Reads and parses a regular file, of at most 2 GiB: protobuf's own limit. Throws kOnnx for others.
OnnxModel load_onnx(const std::string& path);

}  // namespace scn
