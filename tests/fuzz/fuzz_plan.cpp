// SPDX-License-Identifier: Apache-2.0
// Plans of networks that the bytes describe, changed in some places behind a right checksum; then frames.
#include <algorithm>
#include <cstdint>
#include <string>

#include "core/error.h"
#include "core/xxh64.h"
#include "frames.h"
#include "random_model.h"
#include "scn_fx/plan.h"

namespace {

constexpr size_t kSizeAt = 12, kHead = 20, kChecksum = 8;

void put_word(std::string& plan, size_t at, uint64_t word, size_t bytes) {
  for (size_t i = 0; i < bytes && at + i < plan.size(); ++i) plan[at + i] = char(word >> 8 * i);
}

/// With other bytes, numbers and lengths here and there.
void change(std::string& plan, fuzz::Bytes& bytes) {
  for (int changes = bytes.between(0, 4); changes > 0; --changes) {
    const size_t end = plan.size() - kChecksum;
    if (end <= kHead + kChecksum) return;
    const size_t at = kHead + bytes.below(uint32_t(end - kHead));
    const size_t size = size_t(bytes.between(1, 8));
    switch (bytes.below(4)) {
      case 0:
        plan[at] = char(bytes.byte());
        break;
      case 1:
        put_word(plan, at, uint64_t(bytes.edge()), size);
        break;
      case 2:
        plan.erase(at, std::min(size, end - at));
        break;
      default:
        plan.insert(at, plan.substr(at, std::min(size, end - at)));
    }
  }
}

void seal(std::string& plan) {
  put_word(plan, kSizeAt, plan.size(), sizeof(uint64_t));
  const size_t end = plan.size() - kChecksum;
  put_word(plan, end, scn::xxh64(plan.data(), end), kChecksum);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Bytes bytes(data, size);
  const std::string onnx = fuzz::write_onnx(fuzz::any_model(bytes));
  scn::EngineOptions options;
  options.float32 = bytes.chance(10);
  options.memory_limit = int64_t(1) << 28;
  std::string plan;
  try {
    plan = scn::plan_bytes(onnx.data(), onnx.size(), options);
  } catch (const scn::Error&) {
    return 0;
  }
  change(plan, bytes);
  seal(plan);
  fuzz::run_file(plan, bytes);
  return 0;
}
