// SPDX-License-Identifier: Apache-2.0
#include "plan/initializers.h"

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/sizes.h"
#include "scn_fx/half.h"

namespace scn {
namespace {

// raw_data is little-endian, whatever the machine: values are put together from bytes, which a compiler for a
// little-endian machine turns into plain loads.
class Values {
 public:
  Values(const OnnxTensor& t, const std::string& label, const char* what)
      : t_(t), label_(label), what_(what), count_(Size::of(t.dims)) {}

  std::vector<float> read() {
    if (t_.external) {
      fail(ErrorKind::kOnnx, label_, ": its ", what_,
           " lies outside the file. Export with external_data=False.");
    }
    if (t_.data_type != kOnnxFloat16 && t_.data_type != kOnnxFloat) {
      fail(ErrorKind::kOnnx, label_, ": its ", what_, " must be float16 (data type 10), the file has ",
           onnx_type_name(t_.data_type), " (data type ", t_.data_type,
           "). Export the model through scn_fx.onnx_view, which rounds weights to float16.");
    }
    if ((t_.raw_size > 0) + !t_.int32_data.empty() + !t_.float_data.empty() > 1) {
      fail(ErrorKind::kOnnx, label_, ": its ", what_,
           " is stored twice (in raw_data and in int32_data or float_data). The file is damaged.");
    }
    const bool half = t_.data_type == kOnnxFloat16;
    std::vector<float> values = half ? halves() : singles();
    for (float v : values) {
      if (!std::isfinite(v)) {
        fail(ErrorKind::kOnnx, label_, ": its ", what_, " holds NaN or infinity. Check the model's weights.");
      }
    }
    if (!half) {
      for (float v : values) check_exact(v);
    }
    return values;
  }

 private:
  std::vector<float> halves() {
    // sizes first: dimensions are whatever the file says
    if (t_.int32_data.empty()) {
      check_size(t_.raw_size, 2, "bytes of raw_data");
      std::vector<float> out(count_.count());
      const auto* raw = reinterpret_cast<const uint8_t*>(t_.raw);
      for (size_t i = 0; i < out.size(); ++i)
        out[i] = half_to_float(uint16_t(raw[2 * i] | raw[2 * i + 1] << 8));
      return out;
    }
    check_size(t_.int32_data.size(), 1, "entries of int32_data");
    std::vector<float> out(count_.count());
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t bits = t_.int32_data[i];
      if (bits < 0 || bits > 0xffff) {
        fail(ErrorKind::kOnnx, label_, ": its ", what_, " holds ", bits,
             " in int32_data; the bits of a float16 lie in 0 to 65535. The file is damaged.");
      }
      out[i] = half_to_float(uint16_t(bits));
    }
    return out;
  }

  std::vector<float> singles() {
    if (!t_.float_data.empty()) {
      check_size(t_.float_data.size(), 1, "entries of float_data");
      return t_.float_data;
    }
    check_size(t_.raw_size, 4, "bytes of raw_data");
    std::vector<float> out(count_.count());
    const auto* raw = reinterpret_cast<const uint8_t*>(t_.raw);
    for (size_t i = 0; i < out.size(); ++i) {
      uint32_t bits = 0;
      for (int byte = 0; byte < 4; ++byte) bits |= uint32_t(raw[4 * i + byte]) << (8 * byte);
      std::memcpy(&out[i], &bits, 4);
    }
    return out;
  }

  void check_size(size_t given, size_t each, const char* unit) {
    const Size needed = count_ * each;
    if (needed == given && !needed.too_large()) return;
    std::string dims;
    for (int64_t d : t_.dims) dims += (dims.empty() ? "" : ", ") + std::to_string(d);
    fail(ErrorKind::kOnnx, label_, ": its ", what_, " [", dims, "] needs ", needed.text(), " ", unit,
         ", the file has ", given, ". The file is damaged, or was written incompletely.");
  }

  void check_exact(float v) {
    if (half_to_float(float_to_half(v)) != v) {
      fail(ErrorKind::kOnnx, label_, ": its ", what_, " is float32 and holds ", v,
           ", which float16 cannot hold exactly. Export the model through scn_fx.onnx_view, which rounds "
           "weights to float16.");
    }
  }

  const OnnxTensor& t_;
  const std::string& label_;
  const char* const what_;
  const Size count_;
};

}  // namespace

std::vector<float> initializer_values(const OnnxTensor& tensor, const std::string& label, const char* what) {
  return Values(tensor, label, what).read();
}

}  // namespace scn
