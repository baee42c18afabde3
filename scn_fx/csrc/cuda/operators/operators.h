// SPDX-License-Identifier: Apache-2.0
// Single operators over a caller's device memory: what the torch custom operators run on a GPU, by the
// engine's kernels. All addresses are of the device; results and scratch memory are the caller's too, so that
// his allocator keeps them in the order of his stream. Builds without CUDA have the same functions, which say
// so.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/activation.h"
#include "core/layer.h"
#include "core/sizes.h"
#include "core/types.h"

namespace scn {

/// Where an operator runs: a device and a stream (cudaStream_t) of it.
struct CudaPlace {
  int device;
  void* stream;
};

/// Sites of a caller, and the convolution whose kernel map is to be made of them.
struct CudaMapCall {
  CudaPlace place;
  GivenSites sites;  // rows at multiples of 16 bytes
  ConvGeometry geometry;
  int64_t output_bound;  // not of a submanifold convolution
  std::string layer;
  void* scratch;  // map_scratch() bytes
};

/// Checks the call and says how many bytes of scratch memory it takes.
Size cuda_map_scratch(const CudaMapCall& call);
/// map [sites, offsets] of a submanifold convolution, rows in the order of the sites. Waits. Throws for sites
/// out of range and for duplicates.
void cuda_subm_map(const CudaMapCall& call, int32_t* map);
/// How many output sites a strided or transposed convolution has. Waits, and throws as above and for more
/// than output_bound.
int64_t cuda_output_sites(const CudaMapCall& call);
/// Then, with the same scratch memory: those sites [outputs, 4], ascending, and the map [outputs, offsets].
void cuda_conv_map(const CudaMapCall& call, int64_t outputs, Site* sites, int32_t* map);

/// inverse [input_sites, offsets] of a map [outputs, offsets]. With `checks` (scratch, four int32) it waits,
/// and throws for entries that are no input row and for maps without an inverse; a map that is known to have
/// one needs none.
void cuda_inverse_map(const CudaPlace& place, const int32_t* map, int64_t outputs, int64_t offsets,
                      int64_t input_sites, const std::string& layer, int32_t* checks, int32_t* inverse);

/// One convolution with the arithmetic of its precision; as ConvolutionCall (core/layer.h), but of the
/// device.
struct CudaConvolutionCall {
  CudaPlace place;
  const void* features;  // [in_sites, in_channels] float32, or float16 if half_features; at 16 bytes
  bool half_features;
  int64_t in_sites, in_channels;
  const float* weight;  // [out_channels, offsets, in_channels]
  int64_t out_channels, offsets;
  const float* bias;         // [out_channels] or null
  const float* weight_amax;  // [out_channels], int8 only, usable
  double input_amax;         // int8 only, usable
  const int32_t* map;        // [out_sites, offsets]
  int64_t out_sites;
  ElementType precision;
  bool round_output;
  Activation activation;
  double output_amax;  // stores int8 of this range; 0: none, else usable
  std::string layer;
  std::string kernel;  // by its name in the registry; empty: the first that suits
  void* scratch;       // CudaConvolutionSizes::scratch bytes
  /// [out_sites, CudaConvolutionSizes::columns] float32, float16 if round_output, or int8 with an
  /// output_amax.
  void* result;
};

struct CudaConvolutionSizes {
  int64_t scratch;
  int64_t columns;     // of a result's row, of which the first out_channels count
  std::string kernel;  // that will run, with its config in one line
};

/// Checks the call and says what memory it takes, and what will run it.
CudaConvolutionSizes cuda_convolution_sizes(const CudaConvolutionCall& call);
/// Runs it. Waits where a value can be lost, that is, but for a float32 result of float32; throws as the CPU
/// does for values that its precision does not have. `repeat` more runs of the product and its finish alone
/// are timed by events, and waited for: their seconds.
std::vector<double> cuda_convolve(const CudaConvolutionCall& call, int32_t repeat = 0);

/// The same of arrays in host memory, copied to a device and back; checked as the CPU checks them.
Convolved cuda_convolve(int device, const ConvolutionCall& call);
/// The names of all kernels that can run it on a device.
std::vector<std::string> cuda_convolution_kernels(int device, const ConvolutionCall& call);

/// act(a + b) of float32 arrays, as AddCall (cpu/operators/functions.h).
struct CudaAddCall {
  CudaPlace place;
  const float *a, *b;
  int64_t count;
  ElementType precision;
  bool round_output;
  Activation activation;
  double amax0, amax1;  // int8 only, usable
  std::string layer;
  int32_t* counts;  // scratch, four of them
  void* result;     // [count] float32, or float16 if round_output
};
/// Waits and throws as cuda_convolve.
void cuda_add(const CudaAddCall& call);

/// out [rows, offsets, channels] of float32: row map[row, offset] of x [x_rows, channels], zeros where there
/// is none.
void cuda_gather(const CudaPlace& place, const float* x, int64_t x_rows, int64_t channels, const int32_t* map,
                 int64_t rows, int64_t offsets, float* out);

}  // namespace scn
