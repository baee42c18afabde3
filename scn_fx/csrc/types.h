// SPDX-License-Identifier: Apache-2.0
// The vocabulary shared by the plan, the kernel maps and the backends.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace scn {

using Triple = std::array<int32_t, 3>;  // (z, y, x)

/// A site: batch, z, y, x; the row of an `indices` array.
struct Site {
  int32_t batch, z, y, x;
};
static_assert(sizeof(Site) == 4 * sizeof(int32_t), "indices are read as rows of four int32");

enum class Precision : uint8_t { kInt8, kFloat16, kFloat32 };

/// How one stored form of a value lies in memory. A backend may keep float16 values in either float format.
enum class Format : uint8_t { kInt8, kFloat32 };

inline const char* precision_name(Precision precision) {
  return precision == Precision::kInt8 ? "int8" : precision == Precision::kFloat16 ? "fp16" : "fp32";
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
