// SPDX-License-Identifier: Apache-2.0
#include "python/functions_binding.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "cpu/functions.h"
#include "maps/kernel_map.h"
#include "plan/arena.h"
#include "python/arrays.h"
#include "ranges.h"

namespace scn::python {
namespace {

using Ints = std::vector<int32_t>;

/// One pool per thread count for the single operators. A pool serves one loop at a time, hence the lock.
class SharedPool {
 public:
  explicit SharedPool(int threads) : lock_(mutex()) {
    auto& slot = pools()[threads];
    if (!slot) slot = std::make_unique<ThreadPool>(threads);
    pool_ = slot.get();
  }
  ThreadPool& get() { return *pool_; }

 private:
  static std::mutex& mutex() {
    static std::mutex m;
    return m;
  }
  static std::map<int, std::unique_ptr<ThreadPool>>& pools() {
    static auto* all = new std::map<int, std::unique_ptr<ThreadPool>>;  // outlives threads at exit on purpose
    return *all;
  }
  std::lock_guard<std::mutex> lock_;
  ThreadPool* pool_;
};

const Site* sites_of(const Array& indices) {
  return reinterpret_cast<const Site*>(int32_rows(indices, 4, "indices"));
}

nb::object subm_map_numpy(const Array& indices, int32_t batch_size, const Ints& shape, const Ints& kernel,
                          const Ints& dilation, const std::string& name, int threads) {
  ConvGeometry g;
  g.subm = true;
  g.kernel = triple(kernel, "kernel_size");
  g.dilation = triple(dilation, "dilation");
  g.input_shape = g.output_shape = triple(shape, "spatial_shape");
  for (int i = 0; i < 3; ++i) g.padding[i] = g.kernel[i] / 2 * g.dilation[i];
  const Site* sites = sites_of(indices);
  const int64_t count = int64_t(indices.shape(0));
  std::unique_ptr<int32_t[]> map(new int32_t[size_t(count * g.volume())]);
  {
    nb::gil_scoped_release release;
    SharedPool pool(threads);
    SiteSet set;
    index_sites(sites, count, g.input_shape, batch_size, name, pool.get(), &set);
    subm_map(set, g, pool.get(), map.get());
  }
  return int32_array(std::move(map), size_t(count), size_t(g.volume()));
}

nb::tuple conv_map_numpy(const Array& indices, int32_t batch_size, const Ints& input_shape,
                         const Ints& output_shape, const Ints& kernel, const Ints& stride,
                         const Ints& padding, const Ints& dilation, bool transposed, int64_t output_bound,
                         const std::string& name, int threads) {
  ConvGeometry g;
  g.transposed = transposed;
  g.kernel = triple(kernel, "kernel_size");
  g.stride = triple(stride, "stride");
  g.padding = triple(padding, "padding");
  g.dilation = triple(dilation, "dilation");
  g.input_shape = triple(input_shape, "input_spatial_shape");
  g.output_shape = triple(output_shape, "output_spatial_shape");
  const Site* sites = sites_of(indices);
  const int64_t count = int64_t(indices.shape(0));
  std::unique_ptr<int32_t[]> rows, map;
  int64_t outputs = 0;
  {
    nb::gil_scoped_release release;
    SharedPool pool(threads);
    SiteSet input, output;
    const Reach reach = make_reach(g);
    index_sites(sites, count, g.input_shape, batch_size, name, pool.get(), &input);
    output_sites(input, g, reach, output_bound, name, pool.get(), &output);
    outputs = output.size();
    rows.reset(new int32_t[size_t(outputs * 4)]);
    std::copy(output.sites.begin(), output.sites.end(), reinterpret_cast<Site*>(rows.get()));
    map.reset(new int32_t[size_t(outputs * g.volume())]);
    conv_map(input, output, g, reach, pool.get(), map.get());
  }
  return nb::make_tuple(int32_array(std::move(rows), size_t(outputs), 4),
                        int32_array(std::move(map), size_t(outputs), size_t(g.volume())));
}

nb::object inverse_map_numpy(const Array& map, int64_t input_sites) {
  const int32_t* entries = int32_rows(map, 0, "kernel_map");
  std::unique_ptr<int32_t[]> inverse(new int32_t[size_t(input_sites) * map.shape(1)]);
  inverse_map(entries, int64_t(map.shape(0)), int32_t(map.shape(1)), input_sites, inverse.get());
  return int32_array(std::move(inverse), size_t(input_sites), map.shape(1));
}

/// The float32 result, or its float16 values (exact: they were rounded already).
nb::object float_result(std::unique_ptr<float[]> y, size_t rows, size_t columns, bool half) {
  if (!half) return to_numpy(std::move(y), {rows, columns}, float_dtype(32));
  std::unique_ptr<uint16_t[]> out(new uint16_t[rows * columns]);
  for (size_t i = 0; i < rows * columns; ++i) out[i] = float_to_half(y[i]);
  return to_numpy(std::move(out), {rows, columns}, float_dtype(16));
}

nb::object convolution_numpy(const Array& features, const Array& weight, const std::optional<Array>& bias,
                             const Array& map, const std::string& precision,
                             const std::string& output_precision, bool relu, float input_amax,
                             const std::optional<Array>& weight_amax, const std::string& name, int threads) {
  const FloatView x(features, "features"), w(weight, "weight");
  if (features.ndim() != 2 || weight.ndim() != 5 || features.shape(1) != weight.shape(4)) {
    fail(ErrorKind::kSite, name, ": expected features [N, C] and weight [out, kz, ky, kx, C], got ",
         shape_name(features), " and ", shape_name(weight), ".");
  }
  std::optional<FloatView> b, amax;
  if (bias) b.emplace(*bias, "bias");
  if (weight_amax) amax.emplace(*weight_amax, "weight dynamic ranges");
  ConvCall call{};
  WeightSource& s = call.weights;
  s.precision = precision_of(precision, "precision");
  s.weight = w.data();
  s.bias = b ? b->data() : nullptr;
  s.out_channels = int32_t(weight.shape(0));
  s.offsets = int32_t(weight.shape(1) * weight.shape(2) * weight.shape(3));
  s.in_channels = int32_t(weight.shape(4));
  s.input_amax = input_amax;
  s.weight_amax = amax ? amax->data() : nullptr;
  s.layer = name;
  call.map = int32_rows(map, size_t(s.offsets), "kernel_map");
  if ((b && b->size() != size_t(s.out_channels)) || (amax && amax->size() != size_t(s.out_channels)) ||
      (s.precision == Precision::kInt8 && !amax)) {
    fail(ErrorKind::kArgument, name, ": bias and weight dynamic ranges need one entry per output channel (",
         s.out_channels, "); int8 needs the ranges.");
  }
  call.features = x.data();
  call.in_sites = int64_t(features.shape(0));
  call.out_sites = int64_t(map.shape(0));
  call.round_output = precision_of(output_precision, "output_precision") == Precision::kFloat16;
  call.relu = relu;
  std::unique_ptr<float[]> y(new float[size_t(call.out_sites) * size_t(s.out_channels)]);
  {
    nb::gil_scoped_release release;
    SharedPool pool(threads);
    convolve(call, pool.get(), y.get());
  }
  return float_result(std::move(y), map.shape(0), weight.shape(0), call.round_output);
}

nb::object add_numpy(const Array& a, const Array& b, const std::string& precision,
                     const std::string& output_precision, bool relu, float amax0, float amax1,
                     const std::string& name, int threads) {
  const FloatView left(a, "the first input"), right(b, "the second input");
  if (a.ndim() != 2 || b.ndim() != 2 || a.shape(0) != b.shape(0) || a.shape(1) != b.shape(1)) {
    fail(ErrorKind::kSite, name, ": both inputs need the same shape [N, C], got ", shape_name(a), " and ",
         shape_name(b), ".");
  }
  const Precision p = precision_of(precision, "precision");
  if (p == Precision::kInt8 && !(usable_range(amax0) && usable_range(amax1))) {
    fail(ErrorKind::kArgument, name, ": an int8 Add needs two input dynamic ranges, each ", kUsableRange,
         "; got ", amax0, " and ", amax1, ".");
  }
  const bool half = precision_of(output_precision, "output_precision") == Precision::kFloat16;
  std::unique_ptr<float[]> y(new float[left.size()]);
  {
    nb::gil_scoped_release release;
    SharedPool pool(threads);
    add({left.data(), right.data(), int64_t(a.shape(0)), int32_t(a.shape(1)), p, half, relu, amax0, amax1,
         name},
        pool.get(), y.get());
  }
  return float_result(std::move(y), a.shape(0), a.shape(1), half);
}

nb::object scatter_dense_numpy(const Array& features, const Array& indices, int32_t batch_size,
                               const Ints& shape, const std::string& name, int threads) {
  const bool half = is_float(features, 16);
  if (features.ndim() != 2 || (!half && !is_float(features, 32))) {
    fail(ErrorKind::kSite, name, ": features must be float16 or float32 [N, C], got ", dtype_name(features),
         " ", shape_name(features), ".");
  }
  const Site* sites = sites_of(indices);
  if (indices.shape(0) != features.shape(0)) {
    fail(ErrorKind::kSite, name, ": ", features.shape(0), " features, but ", indices.shape(0), " indices.");
  }
  const Triple grid = triple(shape, "spatial_shape");
  const int32_t channels = int32_t(features.shape(1));
  const size_t cells =
      size_t(batch_size) * size_t(channels) * size_t(grid[0]) * size_t(grid[1]) * size_t(grid[2]);
  const std::vector<size_t> dims{size_t(batch_size), size_t(channels), size_t(grid[0]), size_t(grid[1]),
                                 size_t(grid[2])};
  const int64_t element = half ? 2 : 4;
  std::unique_ptr<char[]> dense(new char[cells * size_t(element)]);
  {
    nb::gil_scoped_release release;
    SharedPool pool(threads);
    SiteSet checked;
    index_sites(sites, int64_t(indices.shape(0)), grid, batch_size, name, pool.get(), &checked);
    scatter_dense(features.data(), element, channels, sites, int64_t(indices.shape(0)), channels, batch_size,
                  grid, pool.get(), dense.get());
  }
  return to_numpy(std::move(dense), dims, float_dtype(half ? 16 : 32));
}

/// A bfloat16 array of any library in host memory, in any order, as float32: exact.
nb::object widen_bfloat16(const nb::ndarray<nb::ro, nb::device::cpu>& a) {
  if (a.dtype().code != uint8_t(nb::dlpack::dtype_code::Bfloat) || a.dtype().bits != 16) {
    fail(ErrorKind::kSite, "expected bfloat16, got ", dtype_name(a), ".");
  }
  const uint16_t* const from = static_cast<const uint16_t*>(a.data());
  std::unique_ptr<float[]> out(new float[a.size()]);
  std::vector<size_t> shape;
  for (size_t axis = 0; axis < a.ndim(); ++axis) shape.push_back(a.shape(axis));
  for (size_t i = 0; i < a.size(); ++i) {
    size_t rest = i;
    int64_t at = 0;
    for (size_t axis = a.ndim(); axis-- > 0;) {
      at += int64_t(rest % shape[axis]) * a.stride(axis);
      rest /= shape[axis];
    }
    const uint32_t bits = uint32_t(from[at]) << 16;
    std::memcpy(&out[i], &bits, sizeof(bits));
  }
  return to_numpy(std::move(out), shape, float_dtype(32));
}

/// Operations per second of multiply-adds without memory traffic on `threads` threads, for about `seconds`.
double measure_peak(const std::string& kind, int threads, double seconds) {
  if (kind != "fp32" && kind != "int8")
    fail(ErrorKind::kArgument, "kind must be 'fp32' or 'int8', got '", kind, "'.");
  if (threads < 1 || !(seconds > 0))
    fail(ErrorKind::kArgument, "threads must be at least 1 and seconds positive.");
  using Clock = std::chrono::steady_clock;
  nb::gil_scoped_release release;
  const Kernels& kernels = select_kernels();
  const auto loop = kind == "fp32" ? kernels.float_loop : kernels.int8_loop;
  std::vector<std::thread> workers;
  std::vector<double> rates(static_cast<size_t>(threads));
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      const Clock::time_point begin = Clock::now();
      double operations = 0.0, elapsed = 0.0;
      while (elapsed < seconds) {
        operations += double(loop(1 << 18));
        elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
      }
      rates[size_t(t)] = operations / elapsed;
    });
  }
  for (std::thread& worker : workers) worker.join();
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

/// Offsets of buffers (bytes, first and last step) in an arena, and the arena's bytes.
std::pair<std::vector<int64_t>, int64_t> place_spans_list(
    const std::vector<std::tuple<int64_t, int, int>>& spans) {
  std::vector<Span> placed;
  for (const auto& [bytes, first, last] : spans) placed.push_back({bytes, first, last, 0});
  const int64_t total = place_spans(placed);
  std::vector<int64_t> offsets;
  for (const Span& span : placed) offsets.push_back(span.offset);
  return {offsets, total};
}

}  // namespace

void bind_functions(nb::module_& m) {
  using namespace nb::literals;
  m.def("subm_map", subm_map_numpy, "indices"_a, "batch_size"_a, "spatial_shape"_a, "kernel_size"_a,
        "dilation"_a, "name"_a = "subm_map", "threads"_a = 0);
  m.def("conv_map", conv_map_numpy, "indices"_a, "batch_size"_a, "input_shape"_a, "output_shape"_a,
        "kernel_size"_a, "stride"_a, "padding"_a, "dilation"_a, "transposed"_a, "output_bound"_a,
        "name"_a = "conv_map", "threads"_a = 0);
  m.def("inverse_map", inverse_map_numpy, "kernel_map"_a, "input_sites"_a);
  m.def("convolution", convolution_numpy, "features"_a, "weight"_a, "bias"_a.none(), "kernel_map"_a,
        "precision"_a, "output_precision"_a, "relu"_a, "input_amax"_a, "weight_amax"_a.none(),
        "name"_a = "convolution", "threads"_a = 0);
  m.def("add", add_numpy, "a"_a, "b"_a, "precision"_a, "output_precision"_a, "relu"_a, "amax0"_a, "amax1"_a,
        "name"_a = "add", "threads"_a = 0);
  m.def("scatter_dense", scatter_dense_numpy, "features"_a, "indices"_a, "batch_size"_a, "shape"_a,
        "name"_a = "scatter_dense", "threads"_a = 0);
  m.def("widen_bfloat16", widen_bfloat16, "array"_a);
  m.def("place_spans", place_spans_list, "spans"_a);
  m.def("measure_peak", measure_peak, "kind"_a, "threads"_a, "seconds"_a);
  m.def("cpu_features", [] {
    nb::dict d;
    d["isa"] = select_kernels().name;
    nb::list supported;
    const std::string all = supported_isas();
    for (size_t begin = 0; begin < all.size();) {
      const size_t end = std::min(all.find(' ', begin), all.size());
      supported.append(all.substr(begin, end - begin));
      begin = end + 1;
    }
    d["supported"] = supported;
    return d;
  });
}

}  // namespace scn::python
