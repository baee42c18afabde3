// SPDX-License-Identifier: Apache-2.0
// What goes wrong is an Error, whose text says what was expected, what came and what to do.
#pragma once

#include <stdexcept>
#include <string>

#include "scn_fx/export.h"

namespace scn {

enum class ErrorKind {
  kOnnx,       // the file is not a network this engine runs
  kSite,       // features and indices do not describe a set of sites
  kBound,      // a layer has more sites than its output_bound
  kNonFinite,  // NaN or infinity in the features
  kOverflow,   // a result does not fit in float16
  kArgument,   // the call itself is wrong
  kMemory,     // more memory would be needed than there may be
  kPlan,       // the plan is damaged, or was made for another version or kind of processor
};

/// What every function of the library throws.
class SCN_FX_EXPORT Error : public std::runtime_error {
 public:
  /// Of a kind, with the text that what() gives.
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  /// Which of the kinds it is.
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace scn
