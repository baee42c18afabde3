// SPDX-License-Identifier: Apache-2.0
// The engine as a C++ program uses it: load an ONNX file in the libspconv dialect, then run frames.
//
//   scn::Engine engine("scn.onnx");
//   scn::FrameView frame{features, /*half=*/true, sites, channels, indices};
//   std::vector<scn::Result> results = engine.run(frame);
//
// With EngineOptions::cuda it runs on a GPU: run() takes and returns host memory all the same, enqueue()
// device memory. This header and those it includes are all that a program sees; they need no CUDA headers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scn_fx/error.h"
#include "scn_fx/export.h"
#include "scn_fx/frame.h"
#include "scn_fx/gpu.h"
#include "scn_fx/result.h"

namespace scn {

/// Of an engine on a GPU.
struct CudaOptions {
  int device = 0;
  int32_t max_batch = 0;  // largest batch of a frame; 0: the exported one, or 1
  int64_t max_sites = 0;  // most sites of a frame; 0: the largest output_bound of the layers
  bool graph = true;      // replay a captured CUDA graph instead of launching kernels one by one
};

struct EngineOptions {
  bool float32 = false;           // everything in float32 instead of the file's precisions
  bool trace = false;             // keep every node's value, fuse nothing
  int threads = 0;                // of the CPU; 0: one per usable processor
  Triple spatial_shape{0, 0, 0};  // grid (z, y, x) of the input, for files that do not say
  int64_t memory_limit = 0;  // bytes of host memory for weights and a frame; 0: half of what there may be
  bool cuda = false;         // run on a GPU, with these options
  CudaOptions cuda_options;
};

class Session;

/// A loaded network. Calls from several threads take turns. After a call that threw, whatever it was, the
/// next is as good as on a new engine. In the child of a fork, an engine on the CPU goes on; one on a GPU
/// does not, since CUDA does not, and says so. Everything throws Error.
class SCN_FX_EXPORT Engine {
 public:
  /// Loads an ONNX file, or a plan (scn_fx/plan.h). Options that a plan was made with can be left out;
  /// others are refused.
  explicit Engine(const std::string& path, const EngineOptions& options = {});
  /// Loads the bytes of a file, which are copied.
  Engine(const void* bytes, size_t size, const EngineOptions& options = {});
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// Runs a frame in host memory. One result per output of the file; with trace, one per node instead.
  std::vector<Result> run(const FrameView& frame, std::vector<StageTime>* times = nullptr);

  /// Features of a site.
  int32_t input_channels() const;
  /// Dimensions of the network, 1 to 3. The sites of its frames and results are on grids whose leading axes,
  /// those that it lacks, have one cell.
  int ndim() const;
  /// Memory that is held between frames.
  BufferBytes buffer_bytes() const;
  /// Threads of an engine on the CPU; 0 on a GPU.
  int threads() const;
  /// What computes, as "avx512vnni" or "cuda:0".
  std::string backend() const;

  // Engines on a GPU only; others throw kArgument.

  /// Enqueues a frame in device memory (with `indices`, which begin at a multiple of 16 bytes) on a stream
  /// (cudaStream_t; null: the legacy default stream): no allocation, no synchronisation. Throws for what is
  /// known at once, and for what went wrong in an earlier frame that has ended by now and was not reported
  /// yet.
  void enqueue(const FrameView& frame, void* stream);
  /// One result per output, valid for the frame enqueued last, in the order of its stream.
  const std::vector<DeviceResult>& device_results() const;
  /// Waits for the frame enqueued last and throws if something went wrong in it.
  void synchronize();
  /// Sites in a sparse result of the frame enqueued last; waits like synchronize().
  int64_t sites_of(const DeviceResult& result);

 private:
  std::unique_ptr<Session> session_;
};

}  // namespace scn
