// SPDX-License-Identifier: Apache-2.0
// The CUDA backend as the rest of the engine sees it. Needs no CUDA headers; builds without CUDA link
// backend_none.cpp, whose functions say so.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/executor.h"
#include "cpu/stage_timer.h"
#include "plan/plan.h"

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
CudaInfo cuda_info();

/// A result in the device's memory. Owned by the engine and overwritten by its next frame.
struct DeviceResult {
  std::vector<int64_t> dims;  // sparse: dims[0] is the capacity
  bool half = true;           // float16, otherwise float32
  void* data = nullptr;
  bool sparse = false;
  const Site* sites = nullptr;     // [capacity]
  const int32_t* count = nullptr;  // sites, on the device
};

struct CudaOptions {
  int device = 0;
  int32_t max_batch = 0;   // 0: the exported one, or 1
  int64_t max_sites = 0;   // of the input; 0: the largest output_bound of the layers
  bool graph = true;       // replay a captured graph instead of launching kernels one by one
  int64_t load_limit = 0;  // bytes of host memory for loading, see LoadLimits
};

class CudaExecutor {
 public:
  virtual ~CudaExecutor() = default;

  /// Enqueues one frame (device pointers; indices begin at a multiple of 16 bytes) on a stream (cudaStream_t;
  /// null: the legacy default stream): no allocation, no synchronisation. Throws for what is known at once,
  /// and for what went wrong in an earlier frame that has ended by now and was not reported yet.
  virtual void enqueue(const FrameView& frame, void* stream) = 0;
  /// One result per output of the plan, valid for the frame enqueued last, in the order of its stream.
  virtual const std::vector<DeviceResult>& results() const = 0;
  /// Waits for the frame enqueued last and throws if something went wrong in it. Clears what it reports.
  virtual void synchronize() = 0;
  /// Sites in a sparse result of the frame enqueued last; waits like synchronize().
  virtual int64_t sites_of(const DeviceResult& result) = 0;
  /// Runs one frame stage by stage with events between them; waits.
  virtual std::vector<StageTime> profile(const FrameView& frame, void* stream) = 0;
  virtual BufferBytes buffer_bytes() const = 0;
  virtual int device() const = 0;
  /// A stream (cudaStream_t) of the executor's own.
  virtual void* stream() const = 0;
};

std::unique_ptr<CudaExecutor> make_cuda_executor(const Plan& plan, const CudaOptions& options);

/// Copies device memory to the host after earlier work of `stream`; waits.
void cuda_to_host(int device, void* host, const void* data, int64_t bytes, void* stream);
/// A copy in new device memory, made on `stream`; cuda_free releases it.
void* cuda_copy(int device, const void* data, int64_t bytes, void* stream);
void cuda_free(int device, void* data) noexcept;
/// What is enqueued on `later` from now on waits for what has been enqueued on `earlier`.
void cuda_order(int device, void* earlier, void* later);

/// Device memory for callers that have none (numpy arrays): grows, never shrinks.
class CudaStaging {
 public:
  explicit CudaStaging(int device) : device_(device) {}
  ~CudaStaging();
  CudaStaging(const CudaStaging&) = delete;
  /// Device copy of `bytes` of host memory, valid until the next upload to the same slot (0 or 1). The host
  /// memory has been read when this returns.
  const void* upload(int slot, const void* host, int64_t bytes, void* stream);

 private:
  // builds without CUDA use none of them
  [[maybe_unused]] int device_;
  [[maybe_unused]] void* memory_[2] = {nullptr, nullptr};
  [[maybe_unused]] int64_t capacity_[2] = {0, 0};
};

}  // namespace scn
