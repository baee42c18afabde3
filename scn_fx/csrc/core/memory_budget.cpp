// SPDX-License-Identifier: Apache-2.0
#include "core/memory_budget.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>

#if !defined(_WIN32)
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace scn {
namespace {

// An operator that takes no more than this does not ask the system, which takes longer than a small operator.
constexpr int64_t kNotAsked = int64_t(1) << 26;
constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

/// The number that a file of the system holds; kUnknown without the file, or if it holds a word as "max".
int64_t number_in(const char* path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "r"), std::fclose);
  long long number = 0;
  if (!file || std::fscanf(file.get(), "%lld", &number) != 1 || number <= 0) return kUnknown;
  return int64_t(number);
}

}  // namespace

int64_t default_memory_limit() {
  int64_t memory = kUnknown;
#if !defined(_WIN32)
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) memory = (Size(int64_t(pages)) * int64_t(page)).value();
  rlimit own{};
  if (getrlimit(RLIMIT_AS, &own) == 0 && own.rlim_cur != RLIM_INFINITY)
    memory = std::min(memory, int64_t(std::min(own.rlim_cur, rlim_t(kUnknown))));
#endif
  // of containers: control groups, version 2 and version 1
  memory = std::min(memory, number_in("/sys/fs/cgroup/memory.max"));
  memory = std::min(memory, number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
  return memory / 2;
}

MemoryLimits MemoryLimits::of(int64_t limit, size_t file_bytes) {
  if (limit < 0) fail(ErrorKind::kArgument, "memory_limit must be a number of bytes, got ", limit, ".");
  if (limit > 0) return {limit, limit};
  const int64_t all = default_memory_limit();
  // A float16 becomes a float32 of the plan, and up to sixteen more where a layer has one output channel.
  const Size needed = Size(file_bytes) * 64 + (int64_t(1) << 28);
  return {needed > all ? all : needed.value(), all};
}

MemoryBudget::MemoryBudget(int64_t limit) : limit_(limit ? limit : default_memory_limit()) {}

MemoryBudget MemoryBudget::of_operator() {
  MemoryBudget budget(kNotAsked);
  budget.of_engine_ = false;
  return budget;
}

void MemoryBudget::take(Size bytes, const std::string& layer, const char* what) {
  const Size all = taken_ + bytes;
  if (all > limit_ && !of_engine_ && limit_ == kNotAsked) limit_ = default_memory_limit();
  if (all > limit_ && !of_engine_) {
    fail(ErrorKind::kMemory, layer, ": ", what, " would take ", bytes.text(), " bytes, ", all.text(),
         " with what comes before it, but an operator may take ", limit_,
         ", half of what this process may use. Use a smaller grid, batch or kernel, or fewer sites.");
  }
  if (all > limit_) {
    fail(ErrorKind::kMemory, layer, ": ", what, " would take ", bytes.text(), " bytes, ", all.text(),
         " with what comes before it, but this engine may take ", limit_,
         " (memory_limit). Raise the limit if this network is trusted and the machine has the memory; else "
         "use a smaller grid, batch or output_bound.");
  }
  taken_ = all;
}

}  // namespace scn
