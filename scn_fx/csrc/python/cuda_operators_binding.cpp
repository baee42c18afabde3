// SPDX-License-Identifier: Apache-2.0
// Operators on a GPU. Arrays come as addresses: scn_fx.ops.on_cuda, their one caller, has checked dtypes,
// shapes and devices, and keeps them alive.
#include "python/cuda_operators_binding.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "core/activation_info.h"
#include "cuda/operators/operators.h"
#include "python/caller.h"
#include "python/gil.h"

namespace scn::python {
namespace {

using Address = uintptr_t;

CudaPlace place_of(int device, Address stream) { return {device, reinterpret_cast<void*>(stream)}; }

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

/// The arguments of a kernel map, in two steps: sizes first, then memory.
class CudaMap {
 public:
  CudaMap(int device, Address stream, const std::string& layer, Address indices, Integer count,
          Integer batch_size, const Integers& input_shape, const Integers& output_shape,
          const Integers& kernel, const Integers& stride, const Integers& padding, const Integers& dilation,
          bool subm, bool transposed, Integer output_bound) {
    call_.place = place_of(device, stream);
    call_.layer = layer;
    call_.sites = {at<const Site>(indices), count.number, batch_size.number};
    call_.output_bound = output_bound.number;
    ConvGeometry& g = call_.geometry;
    g.subm = subm;
    g.transposed = transposed;
    g.kernel = triple(kernel, "kernel_size");
    g.stride = triple(stride, "stride");
    g.padding = triple(padding, "padding");
    g.dilation = triple(dilation, "dilation");
    g.input_shape = triple(input_shape, "input_spatial_shape");
    g.output_shape = triple(output_shape, "output_spatial_shape");
    scratch_bytes_ = cuda_map_scratch(call_).value();
  }
  int64_t scratch_bytes() const { return scratch_bytes_; }
  void set_scratch(Address scratch) { call_.scratch = at<void>(scratch); }
  void subm_map(Address map) const {
    const GilRelease release;
    cuda_subm_map(call_, at<int32_t>(map));
  }
  int64_t output_sites() const {
    const GilRelease release;
    return cuda_output_sites(call_);
  }
  void conv_map(int64_t outputs, Address sites, Address map) const {
    const GilRelease release;
    cuda_conv_map(call_, outputs, at<Site>(sites), at<int32_t>(map));
  }

 private:
  CudaMapCall call_{};
  int64_t scratch_bytes_ = 0;
};

/// A convolution, in two steps: sizes first, then memory.
class CudaConvolution {
 public:
  CudaConvolution(int device, Address stream, const std::string& layer, Address features, bool half_features,
                  int64_t in_sites, int64_t in_channels, Address weight, int64_t out_channels,
                  int64_t offsets, Address bias, Address weight_amax, double input_amax, Address map,
                  int64_t out_sites, const std::string& precision, bool round_output,
                  const NamedActivation& activation, const std::string& kernel) {
    call_.place = place_of(device, stream);
    call_.layer = layer;
    call_.kernel = kernel;
    call_.features = at<const void>(features);
    call_.half_features = half_features;
    call_.in_sites = in_sites;
    call_.in_channels = in_channels;
    call_.weight = at<const float>(weight);
    call_.out_channels = out_channels;
    call_.offsets = offsets;
    call_.bias = at<const float>(bias);
    call_.weight_amax = at<const float>(weight_amax);
    call_.input_amax = input_amax;
    call_.map = at<const int32_t>(map);
    call_.out_sites = out_sites;
    call_.precision = precision_of(precision, "precision");
    call_.round_output = round_output;
    call_.activation = activation_of(activation.first, activation.second, layer);
    sizes_ = cuda_convolution_sizes(call_);
  }
  int64_t scratch_bytes() const { return sizes_.scratch; }
  int64_t columns() const { return sizes_.columns; }
  const std::string& kernel() const { return sizes_.kernel; }
  void run(Address scratch, Address result) {
    call_.scratch = at<void>(scratch);
    call_.result = at<void>(result);
    const GilRelease release;
    cuda_convolve(call_);
  }

 private:
  CudaConvolutionCall call_{};
  CudaConvolutionSizes sizes_{};
};

void inverse_map(int device, Address stream, const std::string& layer, Address map, int64_t outputs,
                 int64_t offsets, int64_t input_sites, Address checks, Address inverse) {
  const GilRelease release;
  cuda_inverse_map(place_of(device, stream), at<const int32_t>(map), outputs, offsets, input_sites, layer,
                   at<int32_t>(checks), at<int32_t>(inverse));
}

void add(int device, Address stream, const std::string& layer, Address a, Address b, int64_t count,
         const std::string& precision, bool round_output, const NamedActivation& activation, double amax0,
         double amax1, Address counts, Address result) {
  const CudaAddCall call{place_of(device, stream),
                         at<const float>(a),
                         at<const float>(b),
                         count,
                         precision_of(precision, "precision"),
                         round_output,
                         activation_of(activation.first, activation.second, layer),
                         amax0,
                         amax1,
                         layer,
                         at<int32_t>(counts),
                         at<void>(result)};
  const GilRelease release;
  cuda_add(call);
}

void gather(int device, Address stream, Address x, int64_t x_rows, int64_t channels, Address map,
            int64_t rows, int64_t offsets, Address out) {
  const GilRelease release;
  cuda_gather(place_of(device, stream), at<const float>(x), x_rows, channels, at<const int32_t>(map), rows,
              offsets, at<float>(out));
}

}  // namespace

void bind_cuda_operators(nb::module_& m) {
  using namespace nb::literals;
  nb::class_<CudaMap>(m, "CudaMap")
      .def(nb::init<int, Address, const std::string&, Address, Integer, Integer, const Integers&,
                    const Integers&, const Integers&, const Integers&, const Integers&, const Integers&, bool,
                    bool, Integer>(),
           "device"_a, "stream"_a, "name"_a, "indices"_a, "count"_a, "batch_size"_a, "input_shape"_a,
           "output_shape"_a, "kernel_size"_a, "stride"_a, "padding"_a, "dilation"_a, "subm"_a, "transposed"_a,
           "output_bound"_a)
      .def_prop_ro("scratch_bytes", &CudaMap::scratch_bytes)
      .def("set_scratch", &CudaMap::set_scratch, "scratch"_a)
      .def("subm_map", &CudaMap::subm_map, "map"_a)
      .def("output_sites", &CudaMap::output_sites)
      .def("conv_map", &CudaMap::conv_map, "outputs"_a, "sites"_a, "map"_a);
  nb::class_<CudaConvolution>(m, "CudaConvolution")
      .def(nb::init<int, Address, const std::string&, Address, bool, int64_t, int64_t, Address, int64_t,
                    int64_t, Address, Address, double, Address, int64_t, const std::string&, bool,
                    const NamedActivation&, const std::string&>(),
           "device"_a, "stream"_a, "name"_a, "features"_a, "half_features"_a, "in_sites"_a, "in_channels"_a,
           "weight"_a, "out_channels"_a, "offsets"_a, "bias"_a, "weight_amax"_a, "input_amax"_a, "map"_a,
           "out_sites"_a, "precision"_a, "round_output"_a, "activation"_a, "kernel"_a = "",
           "`kernel`: the name of one, see `convolution_kernels`; empty for the one that engines choose.")
      .def_prop_ro("scratch_bytes", &CudaConvolution::scratch_bytes)
      .def_prop_ro("columns", &CudaConvolution::columns,
                   "Values of a result's row, of which the first `out_channels` count.")
      .def_prop_ro("kernel", &CudaConvolution::kernel,
                   "The kernel that runs it and its config, in one line that begins with the kernel's name.")
      .def("run", &CudaConvolution::run, "scratch"_a, "result"_a);
  m.def("cuda_inverse_map", inverse_map, "device"_a, "stream"_a, "name"_a, "map"_a, "outputs"_a, "offsets"_a,
        "input_sites"_a, "checks"_a, "inverse"_a,
        "`checks`: four int32 of scratch memory, or 0 for a map that is known to have an inverse.");
  m.def("cuda_add", add, "device"_a, "stream"_a, "name"_a, "a"_a, "b"_a, "count"_a, "precision"_a,
        "round_output"_a, "activation"_a, "amax0"_a, "amax1"_a, "counts"_a, "result"_a,
        "`counts`: four int32 of scratch memory.");
  m.def("cuda_gather", gather, "device"_a, "stream"_a, "x"_a, "x_rows"_a, "channels"_a, "map"_a, "rows"_a,
        "offsets"_a, "out"_a);
}

}  // namespace scn::python
