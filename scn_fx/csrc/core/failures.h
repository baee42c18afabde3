// SPDX-License-Identifier: Apache-2.0
// What is said of sites, kernel maps and values that cannot be, whoever found it: the CPU or a GPU.
#pragma once

#include <cstdint>
#include <string>

#include "core/types.h"

namespace scn {

/// `wrong` of `count` sites lie outside the grid; `first` is one of them, in row `row`.
[[noreturn]] void fail_outside(int64_t wrong, int64_t count, const Site& first, int64_t row, int32_t batch,
                               const Triple& shape, const std::string& layer);
[[noreturn]] void fail_duplicate(const Site& site, int64_t row, const std::string& layer);
[[noreturn]] void fail_bound(int64_t found, int64_t bound, const char* sites, const std::string& layer);
/// A kernel map reads an input row that there is not.
[[noreturn]] void fail_map_entry(int32_t entry, int64_t input_rows, const std::string& layer);
/// `lost` of `pairs` read the input row at the offset at which another output row reads it.
[[noreturn]] void fail_no_inverse(int64_t lost, int64_t pairs, const std::string& layer);
/// `count` values of a layer's result are NaN or do not fit in float16.
[[noreturn]] void fail_overflow(const std::string& layer, int64_t count);
/// `count` values of `what`, as "conv: its input", are none that int8 has.
[[noreturn]] void fail_not_finite(const std::string& what, int64_t count);

}  // namespace scn
