// SPDX-License-Identifier: Apache-2.0
#include "onnx/regular_file.h"

#include <cstdio>
#include <memory>

#if defined(_WIN32)
#include <sys/stat.h>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "core/error.h"

namespace scn {
namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

[[noreturn]] void fail_kind(const char* kind) {
  fail(ErrorKind::kOnnx, "It is ", kind,
       ", but an ONNX model is read from a regular file. Copy it into one.");
}

#if defined(_WIN32)
File open_file(const std::string& path) { return File(std::fopen(path.c_str(), "rb"), std::fclose); }
#else
File open_file(const std::string& path) {
  // Opening a pipe waits for its writer, unless asked not to.
  const int number = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (number < 0) return File(nullptr, std::fclose);
  File file(fdopen(number, "rb"), std::fclose);
  if (!file) close(number);
  return file;
}
#endif

/// Size of an open regular file; throws for others.
int64_t size_of(std::FILE* file) {
#if defined(_WIN32)
  struct _stat64 status;
  if (_fstat64(_fileno(file), &status) != 0) fail(ErrorKind::kOnnx, "The system does not say what it is.");
  if ((status.st_mode & _S_IFMT) != _S_IFREG) fail_kind("no file");
#else
  struct stat status;
  if (fstat(fileno(file), &status) != 0) fail(ErrorKind::kOnnx, "The system does not say what it is.");
  if (S_ISDIR(status.st_mode)) fail_kind("a folder");
  if (S_ISFIFO(status.st_mode)) fail_kind("a pipe");
  if (S_ISSOCK(status.st_mode)) fail_kind("a socket");
  if (!S_ISREG(status.st_mode)) fail_kind("a device");
#endif
  return int64_t(status.st_size);
}

}  // namespace

std::string read_regular_file(const std::string& path, int64_t most) {
  const File file = open_file(path);
  if (!file) fail(ErrorKind::kOnnx, "Cannot open the ONNX file. Check the path and its permissions.");
  const int64_t size = size_of(file.get());
  if (size > most) {
    fail(ErrorKind::kOnnx, "The file has ", size, " bytes; an ONNX model has ", most,
         " at most (a limit of protobuf). Export it with less in one file.");
  }
  std::string bytes(size_t(size), '\0');
  const size_t read = size ? std::fread(&bytes[0], 1, size_t(size), file.get()) : 0;
  if (std::ferror(file.get())) fail(ErrorKind::kOnnx, "Cannot read the ONNX file to its end.");
  if (read != size_t(size) || std::fgetc(file.get()) != EOF)
    fail(ErrorKind::kOnnx, "The file changed its size while it was read. Try again when it is complete.");
  return bytes;
}

}  // namespace scn
