// SPDX-License-Identifier: Apache-2.0
// Typed access to a node's attributes, with errors that name node, attribute and types.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/activation_info.h"
#include "core/types.h"
#include "onnx/model.h"

namespace scn {

class Attributes {
 public:
  /// `label` names the node in messages. Both must outlive this.
  Attributes(const OnnxNode& node, const std::string& label) : node_(node), label_(label) {}

  bool has(const char* name) const { return node_.find(name) != nullptr; }
  int64_t integer(const char* name, int64_t missing) const;
  float number(const char* name, float missing) const;
  std::string text(const char* name, const char* missing) const;
  std::vector<int64_t> integers(const char* name) const;  // required
  std::vector<float> numbers(const char* name) const;     // empty when missing
  Triple triple(const char* name, const Triple* missing, int32_t least) const;
  ElementType precision(const char* name, ElementType missing) const;
  /// The function behind a layer, by the attribute `activation`, with its parameter.
  Activation activation() const;
  /// That function with its parameter.
  Activation activation(const ActivationInfo& info) const;

 private:
  const OnnxAttribute* typed(const char* name, AttributeType type, const char* type_name) const;

  const OnnxNode& node_;
  const std::string& label_;
};

}  // namespace scn
