// SPDX-License-Identifier: Apache-2.0
// Frames drawn from bytes, and what an engine must do with them.
#pragma once

#include <string>
#include <vector>

#include "bytes.h"
#include "engine/session.h"

namespace fuzz {

/// A frame with its memory.
struct Frame {
  std::vector<float> floats;
  std::vector<uint16_t> halves;
  std::vector<scn::Site> sites;
  scn::FrameView view;
};

/// Distinct sites inside the network's grid, few of them in most cases, with features of about 1.
Frame good_frame(const scn::Network& network, Bytes& bytes);

/// A good frame with one thing wrong: a site, a feature, the channels, the batch, the number of sites.
Frame bad_frame(const scn::Network& network, Bytes& bytes);

/// Options of an engine; small frames never need more than its memory limit.
scn::EngineOptions random_options(Bytes& bytes);

/// Loads an ONNX file or a plan and runs up to five frames, good and bad ones. Good ones must have the bits
/// (or the kind of error) that an engine made for them alone gives. Anything but scn::Error leaves as it was
/// thrown.
void run_file(const std::string& onnx, Bytes& bytes);

}  // namespace fuzz
