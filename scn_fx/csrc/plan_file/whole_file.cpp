// SPDX-License-Identifier: Apache-2.0
#include "plan_file/whole_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#include "core/error.h"

namespace scn {
namespace {

/// A name beside `path` that no other process makes up.
std::string partial_name(const std::string& path) {
  std::random_device random;
  char digits[32];
  std::snprintf(digits, sizeof(digits), ".%08x%08x.partial", unsigned(random()), unsigned(random()));
  return path + digits;
}

bool flushed(std::FILE* file) {
#if defined(_WIN32)
  return !std::fflush(file);
#else
  return !std::fflush(file) && !fsync(fileno(file));
#endif
}

}  // namespace

void write_whole_file(const std::string& path, const std::string& bytes) {
  const std::string partial = partial_name(path);
  std::FILE* const file = std::fopen(partial.c_str(), "wbx");
  bool good = file != nullptr;
  if (file) {
    good = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size() && flushed(file);
    good = !std::fclose(file) && good;
    good = good && !std::rename(partial.c_str(), path.c_str());
  }
  if (good) return;
  const std::string why = std::strerror(errno);
  if (file) std::remove(partial.c_str());
  fail(ErrorKind::kArgument, path, ": it cannot be written: ", why, ". Check the folder and its free space.");
}

}  // namespace scn
