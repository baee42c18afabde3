// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/config.h"

#include "cuda/convolution/registry.h"

namespace scn::cuda {

std::string ConvConfig::text() const {
  std::string text = std::string(kernel->name) + " " + std::to_string(block);
  if (!unit_bytes) text += " channels";
  if (unit_bytes) {
    text += "x";
    if (unit_offsets > 1) text += std::to_string(unit_offsets) + "x";
    text += std::to_string(unit_bytes / unit_offsets) + "B";
  }
  if (place != WeightPlace::kCache) text += place == WeightPlace::kResident ? " resident" : " ring";
  text += " " + std::to_string(threads / kernel->group_threads) + " " + kernel->group;
  if (slots) text += " " + std::to_string(slots) + (slots == 1 ? " slot" : " slots");
  if (shared_bytes) text += " " + std::to_string((shared_bytes + 1023) / 1024) + " KiB";
  return text + ", " + finish_name(finish);
}

}  // namespace scn::cuda
