// SPDX-License-Identifier: Apache-2.0
// Dense maps of a frame, and results.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "core/error.h"
#include "core/failures.h"
#include "cpu/executor.h"

namespace scn {
namespace {

/// dims of a dense value with the exported batch, their first entry, replaced by the frame's; into `out`,
/// which is returned.
const std::vector<int64_t>& with_batch(const ValueSpec& value, int32_t exported, int32_t batch,
                                       const std::string& layer, std::vector<int64_t>* out) {
  out->assign(value.dims.begin(), value.dims.end());
  if (batch == exported) return *out;
  if (!value.batch_first) {
    fail(ErrorKind::kArgument, layer,
         ": its shape does not start with the batch, so it only runs with the exported batch of ", exported,
         ", not ", batch, ".");
  }
  (*out)[0] = batch;
  return *out;
}

template <typename T>
void permute(const T* in, T* out, const std::vector<int64_t>& out_dims,
             const std::vector<int64_t>& in_strides, ThreadPool& pool) {
  const int64_t inner = out_dims.back(), outer = Size::of(out_dims).value() / std::max<int64_t>(1, inner);
  pool.for_each(outer, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t rest = i, offset = 0;
      for (size_t axis = out_dims.size() - 1; axis-- > 0;) {
        offset += rest % out_dims[axis] * in_strides[axis];
        rest /= out_dims[axis];
      }
      for (int64_t j = 0; j < inner; ++j) out[i * inner + j] = in[offset + j * in_strides.back()];
    }
  });
}

}  // namespace

std::unique_ptr<char[]> CpuExecutor::dense_memory(Size bytes, const std::string& layer) {
  budget_.take(bytes, layer, "its dense map");
  try {
    return std::unique_ptr<char[]>(new char[bytes.count()]);
  } catch (const std::bad_alloc&) {
    fail(ErrorKind::kMemory, layer, ": there is no memory for a dense map of ", bytes.value(),
         " bytes. Use a smaller batch size, larger voxels or a smaller range.");
  }
}

void CpuExecutor::scatter(const Step& step) {
  const NodeSpec& n = plan_.node_of(step);
  const ValueSpec& out = plan_.network.values[size_t(n.output)];
  const StoredRows x = rows(step.input);
  const SiteSet& set = held_->sets[size_t(plan_.storage_of(step.input).set)];
  const int32_t batch = held_->batch;
  const std::vector<int64_t>& dims = with_batch(out, plan_.network.batch, batch, n.name, &held_->dims);
  const int64_t element = out.half ? 2 : 4;
  auto& dense = held_->dense[size_t(step.dense_out)];
  dense = dense_memory(Size::of(dims) * element, n.name);
  const void* source = x.data();
  if (out.half && !x.is_half()) {  // rows of floats lie without gaps
    held_->half.resize((Size(set.size()) * step.input.channels).value());
    uint16_t* const half = held_->half.data();
    std::atomic<int64_t> lost{0};
    pool_.for_each(held_->half.size(), int64_t(1) << 15, [&](int64_t begin, int64_t end, int) {
      lost += kernels_.float_to_half(x.floats() + begin, half + begin, end - begin);
    });
    if (lost) fail_overflow(n.name, lost);
    source = half;
  } else if (!out.half && x.is_half()) {
    held_->floats.resize((Size(set.size()) * x.stride()).value());
    float* const floats = held_->floats.data();
    pool_.for_each(held_->floats.size(), int64_t(1) << 15, [&](int64_t begin, int64_t end, int) {
      kernels_.half_to_float(x.half() + begin, floats + begin, end - begin);
    });
    source = floats;
  }
  // may be larger than the sites' grid; they keep their places
  const Triple shape{narrow(dims[2], "z"), narrow(dims[3], "y"), narrow(dims[4], "x")};
  scatter_dense(source, element, x.stride(), set.sites.data(), set.size(), step.input.channels, batch, shape,
                pool_, dense.get());
}

void CpuExecutor::global_pool(const Step& step) {
  const NodeSpec& n = plan_.node_of(step);
  const ValueSpec& out = plan_.network.values[size_t(n.output)];
  const SiteSet& set = held_->sets[size_t(plan_.storage_of(step.input).set)];
  const int32_t channels = step.input.channels, batch = held_->batch;
  auto& dense = held_->dense[size_t(step.dense_out)];
  dense = dense_memory(dense_bytes(out, batch), n.name);
  budget_.take(GlobalPoolMemory::bytes_for(set.size(), batch, channels), n.name, "the sums of its chunks");
  const int64_t lost =
      run_global_pool(kernels_, n.pooling, float_rows(step.input), channels, set.sites.data(), set.size(),
                      batch, out.half, pool_, &held_->global_pool, dense.get());
  if (lost) fail_overflow(n.name, lost);
}

void CpuExecutor::transpose(const Step& step) {
  const NodeSpec& n = plan_.node_of(step);
  const ValueSpec& in = plan_.network.values[size_t(n.inputs[0])];
  const std::vector<int64_t>& dims = with_batch(in, plan_.network.batch, held_->batch, n.name, &held_->dims);
  std::vector<int64_t>&strides = held_->strides, &out_dims = held_->out_dims,
  &out_strides = held_->out_strides;
  strides.assign(dims.size(), 1);
  for (size_t axis = dims.size() - 1; axis-- > 0;) strides[axis] = strides[axis + 1] * dims[axis + 1];
  out_dims.clear();
  out_strides.clear();
  for (int64_t axis : n.dims) {
    out_dims.push_back(dims[size_t(axis)]);
    out_strides.push_back(strides[size_t(axis)]);
  }
  const Size bytes = Size::of(dims) * (in.half ? 2 : 4);
  auto& source = held_->dense[size_t(step.dense_in)];
  auto& target = held_->dense[size_t(step.dense_out)];
  target = dense_memory(bytes, n.name);
  if (in.half) {
    permute(reinterpret_cast<const uint16_t*>(source.get()), reinterpret_cast<uint16_t*>(target.get()),
            out_dims, out_strides, pool_);
  } else {
    permute(reinterpret_cast<const float*>(source.get()), reinterpret_cast<float*>(target.get()), out_dims,
            out_strides, pool_);
  }
  if (step.last_use) {
    source.reset();
    budget_.release(bytes);
  }
}

Result CpuExecutor::result(const PlanOutput& output) {
  const ValueSpec& value = plan_.network.values[size_t(output.value)];
  const int number = plan_.storage_of(output.rows).set;
  const SiteSet& set = held_->sets[size_t(number)];
  const StoredRows from = rows(output.rows);
  const int32_t channels = output.rows.channels;
  Result r;
  r.sparse = true;
  r.half = value.half;
  r.dims = {set.size(), channels};
  const int64_t element = r.half ? 2 : 4;
  const Size bytes = Size::of(r.dims) * element;
  budget_.take(bytes + Size(set.size()) * sizeof(Site), value.name, "its result");
  r.data.reset(new char[bytes.count()]);
  r.sites.resize(size_t(set.size()));
  for (int64_t row = 0; row < set.size(); ++row) {
    // Sites that the caller gave come back in the caller's order.
    const int64_t target = number == 0 ? held_->order[size_t(row)] : row;
    char* out = r.data.get() + target * channels * element;
    r.sites[size_t(target)] = set.sites[size_t(row)];
    if (r.half == from.is_half()) {
      const void* in = r.half ? static_cast<const void*>(from.half() + row * from.stride())
                              : from.floats() + row * from.stride();
      std::memcpy(out, in, size_t(channels * element));
    } else if (r.half) {
      kernels_.float_to_half(from.floats() + row * from.stride(), reinterpret_cast<uint16_t*>(out), channels);
    } else {
      kernels_.half_to_float(from.half() + row * from.stride(), reinterpret_cast<float*>(out), channels);
    }
  }
  return r;
}

Result CpuExecutor::dense_result(const PlanOutput& output) {
  const ValueSpec& value = plan_.network.values[size_t(output.value)];
  Result r;
  r.half = value.half;
  with_batch(value, plan_.network.batch, held_->batch, value.name, &r.dims);
  auto& dense = held_->dense[size_t(output.dense)];
  if (output.last) {
    r.data = std::move(dense);
  } else {
    const Size bytes = Size::of(r.dims) * (r.half ? 2 : 4);
    r.data = dense_memory(bytes, value.name);
    std::memcpy(r.data.get(), dense.get(), bytes.count());
  }
  return r;
}

}  // namespace scn
