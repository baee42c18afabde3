// SPDX-License-Identifier: Apache-2.0
// Errors carry their kind, so that a binding can raise the exception its language expects.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace scn {

enum class ErrorKind {
  kOnnx,       // the file is not a network this engine runs
  kSite,       // features and indices do not describe a set of sites
  kBound,      // a layer has more sites than its output_bound
  kNonFinite,  // NaN or infinity in the features
  kOverflow,   // a result does not fit in float16
  kArgument,   // the call itself is wrong
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

/// Throws an Error whose message is its arguments, streamed one after another.
template <typename... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(kind, message.str());
}

}  // namespace scn
