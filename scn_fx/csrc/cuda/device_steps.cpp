// SPDX-License-Identifier: Apache-2.0
// The launch of each step.
#include <climits>

#include "core/error.h"
#include "core/sizes.h"
#include "cuda/device_plan.h"

namespace scn::cuda {

bool DevicePlan::writes_dense(const Step& step) const {
  if (step.kind == Step::Kind::kScatterDense || step.kind == Step::Kind::kTranspose) return true;
  for (const Emission& e : step.epilogue.emissions) {
    if (e.dense >= 0) return true;
  }
  return false;
}

bool DevicePlan::needs_later_maps(const Step& step) const {
  for (int number : plan_.maps_of(step)) {
    const MapSpec& map = plan_.network.maps[size_t(number)];
    if (map.input_set != 0 || map.output_set != 0) return true;
  }
  return false;
}

void DevicePlan::write_cells(int dense, EmissionView& e) const {
  const ValueSpec& value = plan_.network.values[size_t(plan_.dense[size_t(dense)].value)];
  const Size cells = Size(value.dims[2]) * value.dims[3] * value.dims[4];
  if (cells > INT_MAX) {
    fail(ErrorKind::kArgument, value.name,
         ": the CUDA backend writes dense maps of up to 2^31 - 1 cells, this has ", cells.text(),
         ". Use larger voxels or a smaller range.");
  }
  e.dense = true;
  e.columns = value.channels;
  e.cells = int32_t(cells.value());
  e.height = narrow(value.dims[3], "The height of a dense map");
  e.width = narrow(value.dims[4], "The width of a dense map");
  e.out = dense_[size_t(dense)].data();
}

EmissionView DevicePlan::emission_of(const Emission& emission) const {
  EmissionView e{};
  e.type = emission.type;
  if (emission.affine >= 0) {
    e.scale = affines_[size_t(emission.affine)].scale.data() + emission.affine_column;
    e.shift = affines_[size_t(emission.affine)].shift.data() + emission.affine_column;
  }
  e.activation = emission.activation;
  e.rounds_first = emission.rounds_first;
  e.rounds = emission.rounds;
  e.factor = emission.factor;
  if (emission.dense >= 0) {
    write_cells(emission.dense, e);
  } else {
    e.stride = stride_of(emission.rows);
    e.columns = emission.columns;
    e.out = rows(emission.rows);
  }
  return e;
}

FinishView DevicePlan::finish_of(size_t index) const {
  const Step& step = plan_.steps[index];
  const Epilogue& epilogue = step.epilogue;
  FinishView f{};
  f.overflow = overflow_of(index);
  f.activation = epilogue.activation;
  f.rounds = epilogue.rounds;
  f.channels = plan_.network.values[size_t(step.result)].channels;
  for (const Emission& e : epilogue.emissions) f.emissions[f.emission_count++] = emission_of(e);
  if (epilogue.residual) {
    const Residual& r = epilogue.residual;
    f.residual = {rows(r.other),      r.type,    r.rounds, r.self_is_second, r.scales,
                  stride_of(r.other), r.product, r.scale};
  }
  if (epilogue.affine >= 0) {
    f.scale = affines_[size_t(epilogue.affine)].scale.data();
    f.bias = affines_[size_t(epilogue.affine)].shift.data();
  }
  return f;
}

PooledRows DevicePlan::pooled(int map, const View& view) const {
  return {maps_[size_t(map)], rows(view), plan_.storage_of(view).type, stride_of(view)};
}

void DevicePlan::run_step(size_t index, bool after_maps, cudaStream_t stream) const {
  const Step& step = plan_.steps[index];
  switch (step.kind) {
    case Step::Kind::kLoad: {
      const FinishView f = finish_of(index);
      return load_rows(frame_.data(), sets_[0], f.channels, f, row_of_input_.data(), status_.data(), stream);
    }
    case Step::Kind::kConvolution: {
      const NodeSpec& n = plan_.node_of(step);
      const DeviceConvolution& c = convolutions_[index];
      return convolve(c.config,
                      {maps_[size_t(n.map)], rows(step.input), c.weights, finish_of(index), after_maps},
                      stream);
    }
    case Step::Kind::kRows:
      return finish_rows(rows(step.input), plan_.storage_of(step.input).type, stride_of(step.input),
                         set_of(step.input), finish_of(index), stream);
    case Step::Kind::kConcat:
      return concat(step, stream);
    case Step::Kind::kGroupNorm: {
      const NodeSpec& n = plan_.node_of(step);
      const DeviceAffine& numbers = affines_[size_t(step.node)];
      const GroupNormView v{rows(step.input),
                            plan_.storage_of(step.input).type,
                            stride_of(step.input),
                            n.groups,
                            n.epsilon,
                            numbers.scale.data(),
                            numbers.shift.data()};
      return group_norm_rows(v, set_of(step.input), finish_of(index), stream);
    }
    case Step::Kind::kPool: {
      const NodeSpec& n = plan_.node_of(step);
      return pool_rows({pooled(n.map, step.input)}, n.pooling, finish_of(index), stream);
    }
    case Step::Kind::kUnion: {
      const NodeSpec& n = plan_.node_of(step);
      std::vector<PooledRows> inputs;
      for (size_t i = 0; i < step.parts.size(); ++i) inputs.push_back(pooled(n.maps[i], step.parts[i]));
      return pool_rows(inputs, Pooling::kSum, finish_of(index), stream);
    }
    case Step::Kind::kGlobalPool: {
      const GlobalPoolView v{rows(step.input),
                             plan_.storage_of(step.input).type,
                             stride_of(step.input),
                             plan_.node_of(step).pooling,
                             step.input.channels,
                             plan_.dense[size_t(step.dense_out)].type == ElementType::kFloat16,
                             entry_rows_.data(),
                             pool_chunks_.data(),
                             dense_[size_t(step.dense_out)].data(),
                             overflow_of(index) + 1};
      return global_pool_rows(v, set_of(step.input), stream);
    }
    case Step::Kind::kScatterDense: {
      EmissionView cells{};
      cells.type = plan_.storage_of(step.input).type;
      write_cells(step.dense_out, cells);
      return scatter_rows(rows(step.input), stride_of(step.input), cells, set_of(step.input), stream);
    }
    case Step::Kind::kTranspose:
      return transpose(step, stream);
  }
}

void DevicePlan::concat(const Step& step, cudaStream_t stream) const {
  const auto view = [&](const View& to) {
    CopyView v{};
    v.to = rows(to);
    v.to_stride = stride_of(to);
    v.columns = to.channels;
    v.element = element_bytes(plan_.storage_of(to).type);
    return v;
  };
  for (const Copy& copy : step.copies) {
    CopyView v = view(copy.to);
    v.from = rows(copy.from);
    v.from_stride = stride_of(copy.from);
    copy_columns(v, set_of(copy.to), stream);
  }
  for (const View& blank : step.blanks) copy_columns(view(blank), set_of(blank), stream);
}

void DevicePlan::transpose(const Step& step, cudaStream_t stream) const {
  const NodeSpec& n = plan_.node_of(step);
  const std::vector<int64_t> dims = dense_dims(n.inputs[0]);
  TransposeView v{};
  v.axes = int32_t(dims.size());
  v.element = element_bytes(plan_.dense[size_t(step.dense_out)].type);
  v.count = Size::of(dims).value();
  std::vector<int64_t> strides(dims.size(), 1);
  for (size_t axis = dims.size() - 1; axis-- > 0;) strides[axis] = strides[axis + 1] * dims[axis + 1];
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    v.out_dims[axis] = dims[size_t(n.dims[axis])];
    v.in_strides[axis] = strides[size_t(n.dims[axis])];
  }
  transpose_dense(dense_[size_t(step.dense_in)].data(), dense_[size_t(step.dense_out)].data(), v, stream);
}

void DevicePlan::reset_sets(cudaStream_t stream) const {
  for (const SetMemory& m : set_memory_) {
    check(cudaMemsetAsync(m.words.data(), 0, size_t(m.words.bytes()), stream), "clearing sites");
    check(cudaMemsetAsync(m.line_counts.data(), 0, size_t(m.line_counts.bytes()), stream), "clearing sites");
  }
}

void DevicePlan::clear_dense(cudaStream_t stream) const {
  for (size_t d = 0; d < dense_.size(); ++d) {
    if (!plan_.dense[d].scattered) continue;
    check(cudaMemsetAsync(dense_[d].data(), 0, size_t(dense_[d].bytes()), stream), "clearing a dense map");
  }
}

void DevicePlan::pack_results(cudaStream_t stream) const {
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const View& view = plan_.outputs[i].rows;
    if (!view) continue;
    const bool given = set_of(view).number == 0;  // sites of the caller, in his order
    pack_rows(frame_.data(), rows(view), stride_of(view), element_bytes(plan_.storage_of(view).type),
              view.channels, set_of(view), given ? row_of_input_.data() : nullptr, packed_[i].data(),
              given ? packed_sites_.data() : nullptr, stream);
  }
}

}  // namespace scn::cuda
