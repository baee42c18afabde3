// SPDX-License-Identifier: Apache-2.0
#include "plan/attributes.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace scn {

const OnnxAttribute* Attributes::typed(const char* name, AttributeType type, const char* type_name) const {
  const OnnxAttribute* a = node_.find(name);
  if (a && a->type != type) {
    fail(ErrorKind::kOnnx, label_, ": attribute '", name, "' must be ", type_name, " (ONNX type ", int(type),
         "), the file has type ", int(a->type), ".");
  }
  return a;
}

int64_t Attributes::integer(const char* name, int64_t missing) const {
  const OnnxAttribute* a = typed(name, AttributeType::kInt, "an integer");
  return a ? a->i : missing;
}

float Attributes::number(const char* name, float missing) const {
  const OnnxAttribute* a = typed(name, AttributeType::kFloat, "a float");
  return a ? a->f : missing;
}

std::string Attributes::text(const char* name, const char* missing) const {
  const OnnxAttribute* a = typed(name, AttributeType::kString, "a string");
  return a ? a->s : missing;
}

std::vector<int64_t> Attributes::integers(const char* name) const {
  const OnnxAttribute* a = typed(name, AttributeType::kInts, "a list of integers");
  if (!a) fail(ErrorKind::kOnnx, label_, ": attribute '", name, "' (a list of integers) is missing.");
  return a->ints;
}

std::vector<float> Attributes::numbers(const char* name) const {
  const OnnxAttribute* a = typed(name, AttributeType::kFloats, "a list of floats");
  return a ? a->floats : std::vector<float>{};
}

Triple Attributes::triple(const char* name, const Triple* missing, int32_t least) const {
  if (missing && !has(name)) return *missing;
  const std::vector<int64_t> v = integers(name);
  Triple out{};
  bool good = v.size() == 3;
  for (size_t i = 0; good && i < 3; ++i) {
    good = v[i] >= least && v[i] <= std::numeric_limits<int32_t>::max();
    if (good) out[i] = int32_t(v[i]);
  }
  if (!good) {
    fail(ErrorKind::kOnnx, label_, ": attribute '", name, "' must hold three integers >= ", least,
         " (z, y, x); it holds ", v.size(), v.size() == 3 ? ", some of them out of range." : ".");
  }
  return out;
}

ElementType Attributes::precision(const char* name, ElementType missing) const {
  const OnnxAttribute* a = typed(name, AttributeType::kString, "a string");
  if (!a) return missing;
  if (a->s == "int8") return ElementType::kInt8;
  if (a->s == "fp16") return ElementType::kFloat16;
  fail(ErrorKind::kOnnx, label_, ": attribute '", name, "' must be 'int8' or 'fp16', the file says '", a->s,
       "'.");
}

Activation Attributes::activation() const {
  const std::string name = text("activation", "None");
  std::string known;
  for (const ActivationInfo& info : kActivations) {
    if (name == info.name) return activation(info);
    known += (known.empty() ? "'" : " or '") + std::string(info.name) + "'";
  }
  fail(ErrorKind::kOnnx, label_, ": activation must be ", known, ", the file says '", name, "'.");
}

Activation Attributes::activation(const ActivationInfo& info) const {
  const float value = info.parameter ? number(info.parameter, info.missing_parameter) : 0.0f;
  if (!std::isfinite(value)) {
    fail(ErrorKind::kOnnx, label_, ": ", info.parameter, " of ", info.name,
         " must be a finite number, the file has ", value, ".");
  }
  return {info.kind, value};
}

}  // namespace scn
