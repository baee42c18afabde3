// SPDX-License-Identifier: Apache-2.0
#include "core/layer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/geometry.h"
#include "core/numerics.h"
#include "core/sizes.h"

namespace scn {
namespace {

void check_half(const float* values, int64_t count, const char* what, const std::string& layer) {
  for (int64_t i = 0; i < count; ++i) {
    if (std::fabs(values[i]) < kHalfOverflow) continue;
    fail(ErrorKind::kOverflow, layer, ": its ", what, " holds ", values[i],
         ", which does not fit in float16 (65504 at most). Rescale the layer, or run it in fp32.");
  }
}

void check_range(float amax, const char* what, const std::string& layer) {
  if (usable_range(amax)) return;
  fail(ErrorKind::kArgument, layer, ": the ", what, " must be ", kUsableRange, "; got ", amax,
       ". Calibrate the graph again.");
}

}  // namespace

void check_weights(const LayerWeights& w) {
  check_depth({w.offsets, w.in_channels, w.precision, w.layer});
  if (w.precision == ElementType::kFloat32) return;
  if (w.bias) check_half(w.bias, w.out_channels, "bias", w.layer);
  check_half(w.weight, (Size(w.out_channels) * w.offsets * w.in_channels).value(), "weight", w.layer);
  check_ranges(w);
}

void check_ranges(const LayerWeights& w) {
  check_depth({w.offsets, w.in_channels, w.precision, w.layer});
  if (w.precision != ElementType::kInt8) return;
  check_range(w.input_amax, "input dynamic range", w.layer);
  for (int32_t n = 0; n < w.out_channels; ++n) {
    check_range(w.weight_amax[n], "weight dynamic range", w.layer);
    if (usable_scale(product_scale(w.input_amax, w.weight_amax[n]))) continue;
    fail(ErrorKind::kArgument, w.layer, ": the dynamic ranges of its input, ", w.input_amax,
         ", and of its weight for output channel ", n, ", ", w.weight_amax[n],
         ", have a product that float32 cannot scale sums by. Calibrate the graph again.");
  }
}

void check_depth(const LayerDepth& d) {
  if (d.offsets < 1 || d.offsets > kMostOffsets) {
    fail(ErrorKind::kSite, d.layer, ": a kernel has 1 to ", kMostOffsets, " offsets, the weight has ",
         d.offsets, ".");
  }
  if (d.precision == ElementType::kInt8 && Size(d.offsets) * d.in_channels > kMostInt8Terms) {
    fail(ErrorKind::kArgument, d.layer, ": ", d.offsets, " offsets x ", d.in_channels,
         " input channels may overflow 32-bit sums in int8 (the product must stay below ", kMostInt8Terms + 1,
         "). Run this layer in fp16.");
  }
}

void check_rows(int64_t rows, int64_t channels, const std::string& layer, const char* what) {
  if (channels < 1 || channels > kMostChannels) {
    fail(ErrorKind::kSite, layer, ": ", what, " must have 1 to ", kMostChannels, " channels, got ", channels,
         ".");
  }
  if (rows < 0 || rows > std::numeric_limits<int32_t>::max())
    fail(ErrorKind::kSite, layer, ": ", rows, " rows of ", what, " are more than 32 bits can number.");
}

float checked_range(double amax, const char* what, const std::string& layer) {
  constexpr float kMost = std::numeric_limits<float>::max();
  const float range = std::fabs(amax) <= double(kMost) ? float(amax) : std::numeric_limits<float>::infinity();
  if (!usable_range(range))
    fail(ErrorKind::kArgument, layer, ": ", what, " must be ", kUsableRange, ", got ", amax, ".");
  return range;
}

void check_sizes(const ConvolutionCall& call) {
  check_rows(call.in_sites, call.in_channels, call.layer);
  check_rows(call.out_sites, call.out_channels, call.layer, "its result");
  check_depth({call.offsets, call.in_channels, call.precision, call.layer});
  if (call.precision == ElementType::kInt8 && !call.weight_amax)
    fail(ErrorKind::kArgument, call.layer, ": int8 needs the dynamic ranges of the weight.");
}

void fail_kernel(const std::string& layer, const std::string& wanted, const std::string& problem,
                 const std::vector<std::string>& able) {
  std::string names;
  for (const std::string& name : able) names += (names.empty() ? "'" : ", '") + name + "'";
  fail(ErrorKind::kArgument, layer, ": no kernel '", wanted, "' computes this here (", problem,
       "). Pass one of ", names, ", or '' for the one that an engine takes.");
}

std::string operator_label(const std::string& layer, const char* kind) {
  return layer.empty() ? std::string("This ") + kind : layer;
}

int8_t quantise_weight(float v, float factor) {
  return int8_t(std::nearbyint(std::min(kHighestInt8, std::max(kLowestInt8, v * factor))));
}

}  // namespace scn
