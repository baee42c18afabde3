// SPDX-License-Identifier: Apache-2.0
#include "python/functions_binding.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "core/activation_info.h"
#include "cpu/operators/functions.h"
#include "cpu/operators/map_functions.h"
#include "cpu/operators/weight_gradient.h"
#include "python/caller.h"
#include "python/operator_run.h"

namespace scn::python {
namespace {

NumpyArray int_array(IntRows rows) {
  return int32_array(std::move(rows.data), size_t(rows.rows), size_t(rows.columns));
}

NumpyArray subm_map_numpy(const AnyArray& indices, Integer batch_size, const Integers& shape,
                          const Integers& kernel, const Integers& dilation, const std::string& name,
                          Integer threads) {
  const std::string layer = operator_label(name, "submanifold map");
  const Triple grid = triple(shape, "spatial_shape"), offsets = triple(kernel, "kernel_size"),
               spread = triple(dilation, "dilation");
  const GivenSites sites = sites_of(indices, batch_size, layer);
  return int_array(run(layer, threads, [&](ThreadPool& pool) {
    MemoryBudget budget = MemoryBudget::of_operator();
    return make_subm_map(sites, grid, offsets, spread, layer, pool, budget);
  }));
}

TwoArrays conv_map_numpy(const AnyArray& indices, Integer batch_size, const Integers& input_shape,
                         const Integers& output_shape, const Integers& kernel, const Integers& stride,
                         const Integers& padding, const Integers& dilation, bool transposed,
                         Integer output_bound, const std::string& name, Integer threads) {
  const std::string layer = operator_label(name, "convolution map");
  ConvGeometry g;
  g.transposed = transposed;
  g.kernel = triple(kernel, "kernel_size");
  g.stride = triple(stride, "stride");
  g.padding = triple(padding, "padding");
  g.dilation = triple(dilation, "dilation");
  g.input_shape = triple(input_shape, "input_spatial_shape");
  g.output_shape = triple(output_shape, "output_spatial_shape");
  const GivenSites sites = sites_of(indices, batch_size, layer);
  StridedMap made = run(layer, threads, [&](ThreadPool& pool) {
    MemoryBudget budget = MemoryBudget::of_operator();
    return make_conv_map(sites, g, output_bound.number, layer, pool, budget);
  });
  nb::object rows = int_array(std::move(made.sites));
  return nb::make_tuple(rows, int_array(std::move(made.map)));
}

NumpyArray inverse_map_numpy(const AnyArray& map, Integer input_sites, const std::string& name) {
  const std::string layer = operator_label(name, "inverse map");
  const int32_t* const entries = int32_matrix(map, 0, layer, "kernel_map");
  return int_array(run(layer, [&] {
    MemoryBudget budget = MemoryBudget::of_operator();
    return make_inverse_map(entries, int64_t(map.shape(0)), int64_t(map.shape(1)), input_sites.number, layer,
                            budget);
  }));
}

/// The float32 result, or its float16 values (exact: they were rounded already).
NumpyArray float_result(std::unique_ptr<float[]> y, size_t rows, size_t columns, bool half,
                        const std::string& layer, MemoryBudget& budget) {
  if (!half) return to_numpy(std::move(y), {rows, columns}, float_dtype(32));
  const Size count = Size(rows) * Size(columns);
  budget.take(count * sizeof(uint16_t), layer, "its result");
  std::unique_ptr<uint16_t[]> out(new uint16_t[count.count()]);
  for (size_t i = 0; i < count.count(); ++i) out[i] = float_to_half(y[i]);
  return to_numpy(std::move(out), {rows, columns}, float_dtype(16));
}

NumpyArray weight_gradient_numpy(const AnyArray& grad, const AnyArray& features, const AnyArray& map,
                                 const std::string& name, Integer threads) {
  const std::string layer = operator_label(name, "convolution");
  MemoryBudget budget = MemoryBudget::of_operator();
  const FloatView g(grad, 2, layer, "the gradient", budget), x(features, 2, layer, "features", budget);
  const int32_t* const entries = int32_matrix(map, 0, layer, "kernel_map");
  if (grad.shape(0) != map.shape(0)) {
    fail(ErrorKind::kSite, layer, ": the kernel map has ", map.shape(0), " rows, but the gradient has ",
         grad.shape(0), ". Pass the map of the same convolution.");
  }
  const WeightGradientCall call{g.data(), int64_t(grad.shape(0)),     int64_t(grad.shape(1)),
                                x.data(), int64_t(features.shape(0)), int64_t(features.shape(1)),
                                entries,  int64_t(map.shape(1)),      layer};
  std::unique_ptr<float[]> made =
      run(layer, threads, [&](ThreadPool& pool) { return weight_gradient(call, pool, budget); });
  return to_numpy(std::move(made), {grad.shape(1), map.shape(1), features.shape(1)}, float_dtype(32));
}

NumpyArray add_numpy(const AnyArray& a, const AnyArray& b, const std::string& precision,
                     const std::string& output_precision, const NamedActivation& activation, double amax0,
                     double amax1, const std::string& name, Integer threads) {
  const std::string layer = operator_label(name, "addition");
  MemoryBudget budget = MemoryBudget::of_operator();
  const ElementType p = precision_of(precision, "precision");
  const bool half = precision_of(output_precision, "output_precision") == ElementType::kFloat16;
  const FloatView left(a, 2, layer, "the first input", budget),
      right(b, 2, layer, "the second input", budget);
  if (a.shape(0) != b.shape(0) || a.shape(1) != b.shape(1)) {
    fail(ErrorKind::kSite, layer, ": both inputs need the same shape [N, C], got ", shape_name(a), " and ",
         shape_name(b), ".");
  }
  const AddCall call{left.data(),
                     right.data(),
                     int64_t(a.shape(0)),
                     int64_t(a.shape(1)),
                     p,
                     half,
                     activation_of(activation.first, activation.second, layer),
                     amax0,
                     amax1,
                     layer};
  std::unique_ptr<float[]> y = run(layer, threads, [&](ThreadPool& pool) { return add(call, pool, budget); });
  return float_result(std::move(y), a.shape(0), a.shape(1), half, layer, budget);
}

NumpyArray scatter_dense_numpy(const AnyArray& features, const AnyArray& indices, Integer batch_size,
                               const Integers& shape, const std::string& name, Integer threads) {
  const std::string layer = operator_label(name, "dense map");
  const bool half = is_float(features, 16);
  if (features.ndim() != 2 || (!half && !is_float(features, 32))) {
    fail(ErrorKind::kSite, layer, ": features must be float16 or float32 [N, C], got ", dtype_name(features),
         " ", shape_name(features), ".");
  }
  check_memory(features, layer, "features");
  const Triple grid = triple(shape, "spatial_shape");
  const GivenSites sites = sites_of(indices, batch_size, layer);
  if (indices.shape(0) != features.shape(0)) {
    fail(ErrorKind::kSite, layer, ": ", features.shape(0), " features, but ", indices.shape(0), " indices.");
  }
  std::unique_ptr<char[]> dense = run(layer, threads, [&](ThreadPool& pool) {
    MemoryBudget budget = MemoryBudget::of_operator();
    return make_dense(features.data(), half ? 2 : 4, int64_t(features.shape(1)), sites, grid, layer, pool,
                      budget);
  });
  const std::vector<size_t> dims{size_t(batch_size.number), features.shape(1), size_t(grid[0]),
                                 size_t(grid[1]), size_t(grid[2])};
  return to_numpy(std::move(dense), dims, float_dtype(half ? 16 : 32));
}

}  // namespace

void bind_functions(nb::module_& m) {
  using namespace nb::literals;
  SharedPool::prepare();
  m.def("subm_map", subm_map_numpy, "indices"_a, "batch_size"_a, "spatial_shape"_a, "kernel_size"_a,
        "dilation"_a, "name"_a = "subm_map", "threads"_a = 0);
  m.def("conv_map", conv_map_numpy, "indices"_a, "batch_size"_a, "input_shape"_a, "output_shape"_a,
        "kernel_size"_a, "stride"_a, "padding"_a, "dilation"_a, "transposed"_a, "output_bound"_a,
        "name"_a = "conv_map", "threads"_a = 0);
  m.def("inverse_map", inverse_map_numpy, "kernel_map"_a, "input_sites"_a, "name"_a = "inverse_map");
  m.def("weight_gradient", weight_gradient_numpy, "grad"_a, "features"_a, "kernel_map"_a,
        "name"_a = "convolution", "threads"_a = 0,
        "float32 [out, K, in] of grad [M, out], features [N, in] and kernel_map int32 [M, K].");
  m.def("add", add_numpy, "a"_a, "b"_a, "precision"_a, "output_precision"_a, "activation"_a, "amax0"_a,
        "amax1"_a, "name"_a = "add", "threads"_a = 0);
  m.def("scatter_dense", scatter_dense_numpy, "features"_a, "indices"_a, "batch_size"_a, "shape"_a,
        "name"_a = "scatter_dense", "threads"_a = 0);
}

}  // namespace scn::python
