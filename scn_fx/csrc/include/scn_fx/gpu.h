// SPDX-License-Identifier: Apache-2.0
// What this build and this machine have of CUDA. Works without a driver, and in builds without CUDA.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "scn_fx/export.h"

namespace scn {

/// The build, the driver and the devices.
struct CudaInfo {
  bool built = false;
  int compiler = 0;                        // CUDART_VERSION of the build, as 13000
  std::vector<std::string> architectures;  // machine code in this build, as "90" or "90a"
  int ptx = 0;                             // newest PTX in this build, as 120; 0: none
  int driver = 0;                          // newest CUDA version that the driver serves; 0: no driver
  struct Device {
    std::string name;
    int architecture = 0;  // as 90
    int64_t memory = 0;    // bytes
    int multiprocessors = 0;
    bool fits = false;  // this build has code for it
  };
  std::vector<Device> devices;
  std::string problem;  // why no device can be used; empty if one can
};
/// Asks the driver, if there is one.
SCN_FX_EXPORT CudaInfo cuda_info();

}  // namespace scn
