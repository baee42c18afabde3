// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/both.h"
#include "cuda/convolution/finish.h"

namespace scn::cuda {

/// Whether an activation is a lower bound: at_least(y, floor_of(a)).
SCN_FX_BOTH static inline bool is_floor(const Activation& a) { return a.kind <= ActivationKind::kRelu; }

/// Which finish a kernel has: the usual ones are little code, and the one that does everything is slow.
enum class FinishKind : int32_t { kInt8Rows, kHalfRows, kHalfDense, kAny };

/// Of a layer whose products are of `precision`.
FinishKind finish_kind(ElementType precision, const FinishView& finish);

/// As in "int8 rows".
const char* finish_name(FinishKind kind);

}  // namespace scn::cuda
