// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "core/activation_info.h"
#include "core/error.h"

namespace scn {

Activation activation_of(const std::string& name, float parameter, const std::string& layer) {
  std::string known;
  for (const ActivationInfo& info : kActivations) {
    if (name == info.name) {
      if (info.parameter && !std::isfinite(parameter)) {
        fail(ErrorKind::kArgument, layer, ": the parameter of ", info.name, " must be a finite number, got ",
             parameter, ".");
      }
      return {info.kind, info.parameter ? parameter : 0.0f};
    }
    known += (known.empty() ? "'" : " or '") + std::string(info.name) + "'";
  }
  fail(ErrorKind::kArgument, layer, ": activation must be ", known, ", got '", name, "'.");
}

}  // namespace scn
