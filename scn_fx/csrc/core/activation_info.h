// SPDX-License-Identifier: Apache-2.0
// What is known of activations besides their functions.
#pragma once

#include <string>

#include "core/activation.h"

namespace scn {

struct ActivationInfo {
  ActivationKind kind;
  const char* name;       // as in files and in Python
  const char* node;       // op_type of a node that is nothing else; null where there is none
  const char* parameter;  // attribute of its parameter in files; null without one
  float missing_parameter;
  bool nonnegative;  // no result is below zero
  bool idempotent;   // two in a row are one
  bool commutes;     // rounding to float16 before it, besides behind it, changes nothing
};
constexpr ActivationInfo kActivations[] = {
    {ActivationKind::kNone, "None", nullptr, nullptr, 0.0f, false, true, true},
    {ActivationKind::kRelu, "ReLU", "Relu", nullptr, 0.0f, true, true, true},
    {ActivationKind::kLeakyRelu, "LeakyReLU", "LeakyRelu", "alpha", 0.01f, false, false, false},
    {ActivationKind::kSilu, "SiLU", "Silu", nullptr, 0.0f, false, false, false},
    {ActivationKind::kSigmoid, "Sigmoid", "Sigmoid", nullptr, 0.0f, true, false, false},
    {ActivationKind::kTanh, "Tanh", "Tanh", nullptr, 0.0f, false, false, false},
    {ActivationKind::kGelu, "GELU", "Gelu", nullptr, 0.0f, false, false, false},
    {ActivationKind::kGeluTanh, "GELUTanh", "GeluTanh", nullptr, 0.0f, false, false, false},
    {ActivationKind::kRelu6, "ReLU6", "Relu6", nullptr, 0.0f, true, true, true},
    {ActivationKind::kHardswish, "Hardswish", "HardSwish", nullptr, 0.0f, false, false, false},
    {ActivationKind::kHardsigmoid, "Hardsigmoid", "HardSigmoid", nullptr, 0.0f, true, false, false},
};

constexpr const ActivationInfo& info_of(ActivationKind kind) { return kActivations[int32_t(kind)]; }

inline bool operator==(const Activation& a, const Activation& b) {
  return a.kind == b.kind && a.parameter == b.parameter;
}
inline bool is_some(const Activation& a) { return a.kind != ActivationKind::kNone; }

/// The activation of that name, with a parameter if it has one. Throws kArgument for others; `layer` names
/// whom the message is about.
Activation activation_of(const std::string& name, float parameter, const std::string& layer);

}  // namespace scn
