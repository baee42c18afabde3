// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "onnx/model.h"

namespace scn {

/// The values of a weight or bias, each of them finite and a float16 number. ONNX keeps float16 as bytes
/// (raw_data) or as bit patterns in int32_data, float32 as bytes or in float_data; all four are read, float32
/// where no value has to be rounded. Throws kOnnx for everything else; `label` names the node and `what` the
/// initializer in messages.
std::vector<float> initializer_values(const OnnxTensor& tensor, const std::string& label, const char* what);

}  // namespace scn
