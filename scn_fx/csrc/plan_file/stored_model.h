// SPDX-License-Identifier: Apache-2.0
// The nodes of a model in a plan: as in the ONNX file, where NetworkReader checks them all, but not as
// protobuf has them.
#pragma once

#include "core/bytes.h"
#include "onnx/model.h"

namespace scn {

/// `weights`: the initializers' values too, which layers on a GPU are made of. Otherwise plans have them as
/// the CPU's kernels read them.
void write_model(const OnnxModel& model, bool weights, ByteWriter& out);

/// Fills in everything but the buffer, into which tensors will point. Throws kPlan.
void read_model(ByteReader& in, OnnxModel& model);

}  // namespace scn
