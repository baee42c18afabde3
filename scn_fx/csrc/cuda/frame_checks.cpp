// SPDX-License-Identifier: Apache-2.0
#include "cuda/frame_checks.h"

#include "core/error.h"
#include "core/sizes.h"

namespace scn::cuda {

int32_t checked_batch(const DevicePlan& device, const FrameView& frame) {
  const Network& net = device.plan().network;
  const ValueSpec& features = net.values[size_t(net.features)];
  if (frame.channels != features.channels) {
    fail(ErrorKind::kSite, "The network reads ", features.channels, " features per site, the frame has ",
         frame.channels, ". Check which columns the model was trained on.");
  }
  if (reinterpret_cast<uintptr_t>(frame.indices) % sizeof(Site) != 0) {
    fail(ErrorKind::kSite, "The indices must begin at an address that is a multiple of ", sizeof(Site),
         ", since a row is read at once. Make a copy of them first.");
  }
  if (frame.sites > device.sets()[0].capacity) {
    const Triple& shape = net.sets[0].shape;
    if (Size(frame.sites) > Size::of(shape) * device.batch()) {
      fail(ErrorKind::kSite, "The input: ", frame.sites, " sites are more than a grid of ", to_string(shape),
           " with batch ", device.batch(), " has cells, so some are duplicates. Each voxel may occur once.");
    }
    fail(ErrorKind::kBound, "The input: ", frame.sites, " sites, but this engine was made for ",
         device.sets()[0].capacity,
         ". Pass a larger max_voxels, or capture the model with a larger output_bound.");
  }
  const int32_t batch = frame.batch ? frame.batch : net.batch ? net.batch : device.batch();
  if (frame.sites < 0) fail(ErrorKind::kSite, "A frame has at least 0 sites, got ", frame.sites, ".");
  return batch;
}

void take_batch(DevicePlan& device, int32_t batch) {
  const Network& net = device.plan().network;
  if (batch < 1) fail(ErrorKind::kArgument, "The batch size must be at least 1, got ", batch, ".");
  if (batch > device.batch()) {
    fail(ErrorKind::kArgument, "The frame has batch ", batch, ", but this engine was made for ",
         device.batch(), ". Pass max_batch_size=", batch, " when making it.");
  }
  for (size_t i = 0; i < device.plan().outputs.size(); ++i) {
    const PlanOutput& output = device.plan().outputs[i];
    if (output.dense < 0) continue;
    const ValueSpec& value = net.values[size_t(output.value)];
    if (batch != net.batch && !value.batch_first) {
      fail(ErrorKind::kArgument, value.name,
           ": its shape does not start with the batch, so it only runs with the exported batch of ",
           net.batch, ", not ", batch, ".");
    }
    if (value.batch_first) device.results()[i].dims[0] = batch;
  }
}

}  // namespace scn::cuda
