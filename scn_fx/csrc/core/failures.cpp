// SPDX-License-Identifier: Apache-2.0
#include "core/failures.h"

#include "core/error.h"

namespace scn {

void fail_outside(int64_t wrong, int64_t count, const Site& s, int64_t row, int32_t batch,
                  const Triple& shape, const std::string& layer) {
  fail(ErrorKind::kSite, layer, ": ", wrong, " of ", count,
       " sites lie outside the grid; the first is (batch, z, y, x) = (", s.batch, ", ", s.z, ", ", s.y, ", ",
       s.x, ") in row ", row, ", expected batch < ", batch, " and z, y, x < ", to_string(shape),
       ". Check the voxel range, the order of the columns and the batch size.");
}

void fail_duplicate(const Site& s, int64_t row, const std::string& layer) {
  fail(ErrorKind::kSite, layer, ": site (batch, z, y, x) = (", s.batch, ", ", s.z, ", ", s.y, ", ", s.x,
       ") in row ", row,
       " is a duplicate. Each voxel may occur once; merge the points of a voxel before calling.");
}

void fail_bound(int64_t found, int64_t bound, const char* sites, const std::string& layer) {
  fail(ErrorKind::kBound, layer, ": ", found, " ", sites, ", but output_bound is ", bound,
       ". Capture the model again with output_bound=", found + found / 4, " or more.");
}

void fail_map_entry(int32_t entry, int64_t input_rows, const std::string& layer) {
  fail(ErrorKind::kSite, layer, ": the kernel map reads input row ", entry, ", but there are ", input_rows,
       " input rows. Build the map from the same sites as the features.");
}

void fail_no_inverse(int64_t lost, int64_t pairs, const std::string& layer) {
  fail(ErrorKind::kSite, layer, ": ", lost, " of ", pairs,
       " pairs of the kernel map read an input row at an offset at which another output row reads it, so "
       "that the map has no inverse. Pass the map that conv_map made.");
}

void fail_overflow(const std::string& layer, int64_t count) {
  fail(ErrorKind::kOverflow, layer, ": ", count, " values are NaN or do not fit in float16 (65504 at most). ",
       "Rescale the layer, give its consumers int8 precision, or run the network in fp32.");
}

void fail_not_finite(const std::string& what, int64_t count) {
  fail(ErrorKind::kNonFinite, what, " holds ", count,
       " values that are NaN or infinite, which int8 cannot hold. Clean the features, or look for the layer "
       "that makes them.");
}

}  // namespace scn
