// SPDX-License-Identifier: Apache-2.0
// The vocabulary shared by the plan, the kernel maps and the backends.
#pragma once

#include <cstdint>
#include <string>

#include "core/both.h"
#include "core/element_type.h"
#include "scn_fx/frame.h"

namespace scn {

SCN_FX_BOTH static inline constexpr int32_t element_bytes(ElementType type) {
  return type == ElementType::kInt8 ? 1 : type == ElementType::kFloat16 ? 2 : 4;
}

/// As in files and in Python.
inline const char* element_name(ElementType type) {
  return type == ElementType::kInt8 ? "int8" : type == ElementType::kFloat16 ? "fp16" : "fp32";
}

/// Which input site each kernel offset of an output site reads: input = out * stride - padding + k * dilation
/// (transposed: out = in * stride - padding + k * dilation). Offsets are numbered with x fastest.
struct ConvGeometry {
  Triple kernel{1, 1, 1}, stride{1, 1, 1}, padding{0, 0, 0}, dilation{1, 1, 1};
  Triple input_shape{0, 0, 0}, output_shape{0, 0, 0};
  bool subm = false, inverse = false, transposed = false;

  int32_t volume() const { return kernel[0] * kernel[1] * kernel[2]; }
};

std::string to_string(const Triple& t);

inline bool operator==(const ConvGeometry& a, const ConvGeometry& b) {
  return a.kernel == b.kernel && a.stride == b.stride && a.padding == b.padding && a.dilation == b.dilation &&
         a.input_shape == b.input_shape && a.output_shape == b.output_shape && a.subm == b.subm &&
         a.inverse == b.inverse && a.transposed == b.transposed;
}

}  // namespace scn
