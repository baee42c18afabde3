// SPDX-License-Identifier: Apache-2.0
// What an engine gives.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scn_fx/frame.h"

namespace scn {

/// A result, owned by the caller: a dense map, or rows of a sparse result with their sites.
struct Result {
  std::vector<int64_t> dims;
  bool half = true;  // float16 bits, otherwise float32
  std::unique_ptr<char[]> data;
  bool sparse = false;
  std::vector<Site> sites;
};

/// A result in a GPU's memory. Owned by the engine and overwritten by its next frame.
struct DeviceResult {
  std::vector<int64_t> dims;  // sparse: dims[0] is the capacity
  bool half = true;           // float16, otherwise float32
  void* data = nullptr;
  bool sparse = false;
  const Site* sites = nullptr;     // [capacity]
  const int32_t* count = nullptr;  // sites, on the device
};

/// One stage of a frame, in the order of execution.
struct StageTime {
  std::string kind, name;
  double seconds = 0.0;
  int64_t macs = 0;    // multiply-accumulates of active pairs, convolutions only
  std::string kernel;  // which one ran, and its configuration; empty where there is nothing to choose
};

/// Memory that an engine holds between frames, in bytes.
struct BufferBytes {
  int64_t weights = 0, activations = 0, kernel_maps = 0, sites = 0;
};

}  // namespace scn
