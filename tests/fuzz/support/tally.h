// SPDX-License-Identifier: Apache-2.0
// How far inputs came: printed when the process ends, and appended to the file that SCN_FX_FUZZ_TALLY names.
#pragma once

#include <cstdint>

namespace fuzz {

struct Tally {
  int64_t inputs = 0;   // executions
  int64_t read = 0;     // files that the reader took
  int64_t loaded = 0;   // files that became an engine
  int64_t frames = 0;   // frames with results
  int64_t refused = 0;  // frames and calls that got an error
};

/// The one of this process.
Tally& tally();

}  // namespace fuzz
