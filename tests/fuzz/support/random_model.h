// SPDX-License-Identifier: Apache-2.0
// Networks drawn from bytes: valid ones, and ones whose geometry is at the edges of what numbers hold.
#pragma once

#include "bytes.h"
#include "model.h"

namespace fuzz {

/// A network of up to eight blocks on a small, long or very large grid. Mostly one that the engine runs;
/// `extreme` draws sizes, strides, paddings, batches and ranges from the edges of their types and leaves out
/// what the engine would compare them with.
Model random_model(Bytes& bytes, bool extreme);

/// Changes one field of a model: an attribute, a tensor, a name, the wiring, or repeats or drops a part.
void corrupt(Model& model, Bytes& bytes);

/// A model from bytes, extreme or with up to three corrupt fields in most cases.
Model any_model(Bytes& bytes);

}  // namespace fuzz
