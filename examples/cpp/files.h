// SPDX-License-Identifier: Apache-2.0
// What the example programs read and write, and how they describe a result.
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "scn_fx/half.h"
#include "scn_fx/result.h"

namespace example {

constexpr int32_t kInt32 = 1, kFloat16 = 2, kFloat32 = 3;  // type codes of .tensor files
constexpr int32_t kTensorMagic = 0x33ff1101;

inline std::vector<char> read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("Cannot open '" + path + "'. Check the path and its permissions.");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_bytes(const std::string& path, const std::string& head, const char* data, size_t size) {
  std::ofstream file(path, std::ios::binary);
  file.write(head.data(), std::streamsize(head.size()));
  file.write(data, std::streamsize(size));
  file.close();
  if (!file) throw std::runtime_error("Cannot write '" + path + "'. Check the folder and its free space.");
}

/// A matrix from a `.tensor` file: int32 magic, number of dimensions, type code and dimensions, then the
/// data.
struct Matrix {
  int32_t type, rows, columns;
  std::vector<char> data;
};

inline Matrix read_tensor(const std::string& path) {
  const std::vector<char> bytes = read_bytes(path);
  int32_t header[5] = {};  // magic, dimensions, type, rows, columns
  if (bytes.size() >= sizeof header) std::memcpy(header, bytes.data(), sizeof header);
  const bool named = header[0] == kTensorMagic && header[1] == 2 && header[3] >= 0 && header[4] > 0 &&
                     header[2] >= kInt32 && header[2] <= kFloat32;
  const uint64_t width = header[2] == kFloat16 ? 2 : 4;
  if (!named || bytes.size() - sizeof header != uint64_t(header[3]) * uint64_t(header[4]) * width) {
    throw std::runtime_error(path +
                             ": expected a .tensor file of int32, float16 or float32 [rows, columns].");
  }
  return {header[2], header[3], header[4], {bytes.begin() + sizeof header, bytes.end()}};
}

inline int64_t count_of(const scn::Result& result) {
  int64_t count = 1;
  for (const int64_t n : result.dims) count *= n;
  return count;
}

inline size_t bytes_of(const scn::Result& result) { return size_t(count_of(result)) * (result.half ? 2 : 4); }

inline std::string shape_of(const scn::Result& result) {
  std::string shape;
  for (const int64_t n : result.dims) shape += (shape.empty() ? "" : ", ") + std::to_string(n);
  return shape;
}

inline bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// The values of a result as a file that numpy opens (.npy), or as scn_fx.lidar.read_tensor does (.tensor).
inline void write_values(const std::string& path, const scn::Result& result) {
  std::string head;
  if (ends_with(path, ".npy")) {
    // version 1.0: the description ends with a line end, at a multiple of 64 bytes
    std::string text = std::string("{'descr': '") + (result.half ? "<f2" : "<f4") +
                       "', 'fortran_order': False, 'shape': (" + shape_of(result) + ",), }";
    constexpr size_t kBefore = 10;
    text.append(63 - (kBefore + text.size()) % 64, ' ');
    text += '\n';
    head = std::string("\x93NUMPY\x01\x00", 8) + char(text.size() & 0xff) + char(text.size() >> 8) + text;
  } else if (ends_with(path, ".tensor")) {
    std::vector<int32_t> numbers{kTensorMagic, int32_t(result.dims.size()),
                                 result.half ? kFloat16 : kFloat32};
    for (const int64_t n : result.dims) numbers.push_back(int32_t(n));
    head.assign(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(int32_t));
  } else {
    throw std::runtime_error("'" + path + "' must end in .npy or .tensor, the two that can be written.");
  }
  write_bytes(path, head, result.data.get(), bytes_of(result));
}

/// 64-bit FNV-1a: equal outputs have equal hashes, on every machine.
inline uint64_t fnv1a(const void* data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
  return hash;
}

inline void print(const scn::Result& result) {
  int64_t nonzero = 0;
  double sum = 0;
  for (int64_t i = 0; i < count_of(result); ++i) {
    const float value = result.half
                            ? scn::half_to_float(reinterpret_cast<const uint16_t*>(result.data.get())[i])
                            : reinterpret_cast<const float*>(result.data.get())[i];
    sum += value;
    nonzero += value != 0;
  }
  std::printf("%s [%s], sum %.9g, %" PRId64 " values are not zero, FNV-1a %016" PRIx64 "\n",
              result.half ? "float16" : "float32", shape_of(result).c_str(), sum, nonzero,
              fnv1a(result.data.get(), bytes_of(result)));
  if (result.sparse) {
    std::printf("  on %zu sites, FNV-1a %016" PRIx64 "\n", result.sites.size(),
                fnv1a(result.sites.data(), result.sites.size() * sizeof(scn::Site)));
  }
}

}  // namespace example
