// SPDX-License-Identifier: Apache-2.0
// What this build was made for, and what the driver offers. Works, and says why not, without driver or
// device.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>

#include "cuda/backend.h"

namespace scn {
namespace {

// Set by CMake: "80 90a", and "120" or "".
constexpr const char* kCode = SCN_FX_CUDA_CODE;
constexpr const char* kPtx = SCN_FX_CUDA_PTX;

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    if (end > at) out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

/// Machine code serves its own major version from its own minor on ("90a": 90 alone, "100f": as 100), PTX
/// everything that is not older.
bool fits(const CudaInfo& info, int architecture) {
  for (const std::string& code : info.architectures) {
    const int number = std::atoi(code.c_str());
    if (number == architecture) return true;
    if (code.back() != 'a' && number / 10 == architecture / 10 && number <= architecture) return true;
  }
  return info.ptx > 0 && info.ptx <= architecture;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string architectures_text(const CudaInfo& info) {
  std::string out;
  for (const std::string& code : info.architectures) out += (out.empty() ? "" : ", ") + code;
  if (info.ptx) out += (out.empty() ? "PTX " : " and PTX ") + std::to_string(info.ptx);
  return out;
}

std::string runtime_text(cudaError_t status) {
  cudaGetLastError();
  return std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
}

void add_devices(CudaInfo& info, int count) {
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    const cudaError_t status = cudaGetDeviceProperties(&properties, i);
    if (status != cudaSuccess) {
      info.problem = "Device " + std::to_string(i) + " does not answer: " + runtime_text(status) + ".";
      continue;
    }
    CudaInfo::Device device;
    device.name = properties.name;
    device.architecture = properties.major * 10 + properties.minor;
    device.memory = int64_t(properties.totalGlobalMem);
    device.multiprocessors = properties.multiProcessorCount;
    device.fits = fits(info, device.architecture);
    info.devices.push_back(device);
  }
}

}  // namespace

CudaInfo cuda_info() {
  CudaInfo info;
  info.built = true;
  info.compiler = CUDART_VERSION;
  info.architectures = words(kCode);
  info.ptx = std::atoi(kPtx);
  if (cudaDriverGetVersion(&info.driver) != cudaSuccess) {
    cudaGetLastError();
    info.driver = 0;
  }
  if (info.driver == 0) {
    info.problem = "There is no NVIDIA driver on this machine.";
    return info;
  }
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    cudaGetLastError();
    info.problem = "The driver sees no NVIDIA GPU (CUDA_VISIBLE_DEVICES can hide them).";
    return info;
  }
  if (status == cudaErrorInitializationError) {
    info.problem =
        "CUDA does not work in the child of a fork of a process that used it: start processes with "
        "multiprocessing's 'spawn' method, and make an engine in each. (" +
        runtime_text(status) + ")";
    return info;
  }
  if (status != cudaSuccess) {
    info.problem = "The driver, for CUDA " + version_text(info.driver) +
                   ", does not serve this build, made with CUDA " + version_text(info.compiler) + ": " +
                   runtime_text(status) + ".";
    return info;
  }
  add_devices(info, count);
  for (const CudaInfo::Device& device : info.devices) {
    if (device.fits) {
      info.problem.clear();
      return info;
    }
  }
  if (info.problem.empty()) {
    info.problem =
        "This build has code for " + architectures_text(info) + ", but the GPU is " + info.devices[0].name +
        ", architecture " + std::to_string(info.devices[0].architecture) +
        ". Reinstall with SCN_FX_CUDA=on SCN_FX_CUDA_ARCHS=" + std::to_string(info.devices[0].architecture) +
        ".";
  }
  return info;
}

}  // namespace scn
