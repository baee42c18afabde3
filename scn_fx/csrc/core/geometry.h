// SPDX-License-Identifier: Apache-2.0
// What a convolution's geometry may be. Checked once, for files and callers alike: behind it, coordinates and
// all that kernels compute from them on the way fit in 32 bits.
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"
#include "core/types.h"

namespace scn {

/// No coordinate reaches this, nor does padding, or what a kernel spans, added to one.
constexpr int64_t kMostExtent = int64_t(1) << 30;
/// Offsets of a kernel: 31 along each axis and some more.
constexpr int64_t kMostOffsets = int64_t(1) << 15;
/// Offsets times input channels.
constexpr int64_t kMostDepth = int64_t(1) << 24;
/// Input or output channels of a layer.
constexpr int64_t kMostChannels = int64_t(1) << 20;

/// Extent of the output along an axis; below 1 if no output site is left. Wants a geometry whose numbers are
/// in range but for output_shape.
int64_t output_extent(const ConvGeometry& geometry, size_t axis, int32_t output_padding);

/// What a submanifold convolution pads, whatever its module says, so that it keeps its sites; one more than
/// may be, beyond that.
Triple subm_padding(const Triple& kernel, const Triple& dilation);

/// Throws `kind` unless every entry of a grid's shape (z, y, x) is 1 to kMostExtent.
void check_shape(const Triple& shape, const char* name, ErrorKind kind, const std::string& layer);

/// Throws `kind` for a kernel, stride, padding, dilation or shape out of range, alone or together.
void check_geometry(const ConvGeometry& geometry, ErrorKind kind, const std::string& layer);

}  // namespace scn
