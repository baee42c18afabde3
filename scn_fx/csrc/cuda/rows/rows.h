// SPDX-License-Identifier: Apache-2.0
// Kernels that work row by row, outside of convolutions.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "core/pooling.h"
#include "cuda/convolution/finish.h"
#include "cuda/views.h"

namespace scn::cuda {

/// The caller's features, checked, rounded to float16 and stored in the order of set 0. row_of_input[i]
/// becomes the row of the caller's i-th site, -1 where it has none (a frame in error). `made`: the kernel
/// before in the stream makes the frame and its features; otherwise they have been there since sites were
/// marked.
void load_rows(const DeviceFrame* frame, const SitesView& set, int32_t channels, const FinishView& finish,
               int32_t* row_of_input, int32_t* status, bool made, cudaStream_t stream);

/// The finish of stored rows (`self`): an Add that no convolution took along or a product, whose first
/// operand they are, an affine map or an activation.
void finish_rows(const void* self, ElementType type, int32_t stride, const SitesView& set,
                 const FinishView& finish, cudaStream_t stream);

/// Columns that are copied, or set to zero.
struct CopyView {
  const char* from;  // row 0, first column; null: zeros
  char* to;
  int32_t from_stride, to_stride;  // bytes
  int32_t columns, element;        // bytes of an element
};
void copy_columns(const CopyView& view, const SitesView& set, cudaStream_t stream);

/// Stored rows (float16 or float32), and the kernel map over which they are pooled.
struct PooledRows {
  MapView map;
  const char* rows;
  ElementType type;
  int32_t stride;  // bytes
};
/// 1 to kMostUnionParts inputs, whose maps have the same output sites. Sums are made in float32, one input
/// after the other, offsets ascending, and divided by the number of neighbours; the largest of several is NaN
/// if one of them is.
void pool_rows(const std::vector<PooledRows>& inputs, Pooling kind, const FinishView& finish,
               cudaStream_t stream);

/// Stored rows (float16 or float32) that are normalised over groups of their channels, in float64 with sums
/// in the order of channels: (x - mean) / sqrt(variance + epsilon) * scale + shift.
struct GroupNormView {
  const char* rows;
  ElementType type;
  int32_t stride;  // bytes
  int32_t groups;
  float epsilon;
  const float* scale;  // [channels]
  const float* shift;
};
void group_norm_rows(const GroupNormView& view, const SitesView& set, const FinishView& finish,
                     cudaStream_t stream);

/// Stored rows (float16 or float32) that are pooled over all sites of a batch entry.
struct GlobalPoolView {
  const char* rows;
  ElementType type;
  int32_t stride;  // bytes
  Pooling kind;
  int32_t channels;
  bool half;          // the result is float16, otherwise float32
  int32_t* first;     // [batch + 1], room for the first row of each batch entry
  double* chunks;     // [chunk_place(capacity, batch), channels], room for what is made of chunks
  void* out;          // [batch, channels]
  int32_t* overflow;  // entry of the step, for values that float16 does not have
};
/// Sums are made in float64, chunk by chunk (kPoolChunk), and rounded to float32; a mean is divided first.
/// The largest of several is NaN if one of them is. A batch entry without sites gives zeros.
void global_pool_rows(const GlobalPoolView& view, const SitesView& set, cudaStream_t stream);

/// Stored rows to the cells of a dense map that was cleared before.
void scatter_rows(const void* rows, int32_t stride, const EmissionView& dense, const SitesView& set,
                  cudaStream_t stream);

/// A dense map with its axes permuted.
struct TransposeView {
  int32_t axes, element;  // bytes
  int64_t out_dims[kMaxAxes], in_strides[kMaxAxes];
  int64_t count;
};
void transpose_dense(const void* in, void* out, const TransposeView& view, cudaStream_t stream);

/// A sparse result without padding: values [count, channels] and, with `row_of_input`, sites in the caller's
/// order.
void pack_rows(const DeviceFrame* frame, const void* rows, int32_t stride, int32_t element, int32_t channels,
               const SitesView& set, const int32_t* row_of_input, void* values, Site* sites,
               cudaStream_t stream);

/// What the host learns of a frame in error; the host writes 0 to `set` when it has read the rest.
struct FailureHeader {
  int32_t set;
  int32_t sites;  // of the frame
  int32_t batch;  // of the frame
  Site outside, duplicate;
};

/// Copies the status entries to `failure` (host memory, followed by `entries` int32) if a frame went wrong
/// and no earlier failure waits there. limits[s]: sites that set s may have.
void publish_failure(const DeviceFrame* frame, const int32_t* status, int32_t entries, int32_t sets,
                     const int32_t* limits, FailureHeader* failure, cudaStream_t stream);

}  // namespace scn::cuda
