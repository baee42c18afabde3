// SPDX-License-Identifier: Apache-2.0
// What a frame needs before its steps run: sites, kernel maps, room for values.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "cpu/executor.h"

namespace scn {
namespace {

const std::string kInput = "The input";

}  // namespace

void CpuExecutor::build_maps(const FrameView& frame, StageTimer& watch) {
  const Network& net = plan_.network;
  std::vector<SiteSet>& sets = held_->sets;
  int32_t batch = frame.batch ? frame.batch : net.batch;
  if (batch == 0) {
    int32_t last = 0;
    for (int64_t i = 0; i < frame.sites; ++i) last = std::max(last, frame.indices[i].batch);
    // INT32_MAX is no batch index: it is refused as one
    batch = last == std::numeric_limits<int32_t>::max() ? last : last + 1;
  }
  held_->batch = batch;
  // Every map depends on the indices alone; maps are numbered in an order in which each finds its input
  // sites.
  budget_.take(SiteIndex::bitmap_bytes(net.sets[0].shape, batch), kInput, "the index of its grid");
  budget_.take(Size(frame.sites) * (3 * sizeof(Site)), kInput, "its sites");
  index_sites(frame.indices, frame.sites, net.sets[0].shape, batch, kInput, pool_, &sets[0], &held_->order);
  watch.stop("sites", "input");
  for (size_t i = 0; i < net.maps.size(); ++i) {
    const MapSpec& spec = net.maps[i];
    KernelMap& map = held_->maps[i];
    const SiteSet& input = sets[size_t(spec.input_set)];
    SiteSet& output = sets[size_t(spec.output_set)];
    const char* kind = spec.partner >= 0 ? "inverse_map" : spec.geometry.subm ? "subm_map" : "conv_map";
    if (spec.partner < 0 && !spec.geometry.subm) {
      budget_.take(SiteIndex::bitmap_bytes(spec.geometry.output_shape, batch), spec.layer,
                   "the index of its grid");
      const Size sorted = cells_to_sort(input, spec.geometry, reach_[i]) * sizeof(int64_t);
      budget_.take(sorted, spec.layer, "the cells that it reaches");
      output_sites(input, spec.geometry, reach_[i], spec.bound, spec.layer, pool_, &output);
      budget_.take(Size(output.size()) * sizeof(Site), spec.layer, "its sites");
      watch.stop("output_sites", spec.layer.c_str());
    } else if (spec.geometry.subm && input.size() > spec.bound) {
      fail(ErrorKind::kBound, spec.layer, ": ", input.size(), " sites, but output_bound is ", spec.bound,
           ". Capture the model again with output_bound=", input.size() + input.size() / 4, " or more.");
    }
    budget_.take(KernelMap::bytes_for(output.size(), spec.geometry.volume()), spec.layer, "its kernel map");
    if (spec.partner >= 0) {
      inverse_map(held_->maps[size_t(spec.partner)], output.size(), &map);
    } else if (spec.geometry.subm) {
      subm_map(input, spec.geometry, reach_[i], pool_, &map);
    } else {
      conv_map(input, output, spec.geometry, reach_[i], pool_, &map);
    }
    watch.stop(kind, spec.layer.c_str());
  }
}

void CpuExecutor::reserve_slots() {
  std::vector<Size>& needed = held_->slot_bytes;
  needed.assign(held_->slots.size(), Size(0));
  for (const Storage& s : plan_.storages) {
    const Size padding = s.type == ElementType::kFloat16 ? kHalfPadding * sizeof(uint16_t) : 0;
    const Size bytes = Size(held_->sets[size_t(s.set)].size()) * s.row_bytes + padding;
    Size& slot = needed[size_t(s.slot)];
    if (bytes > slot) slot = bytes;
  }
  for (size_t i = 0; i < needed.size(); ++i) {
    std::vector<char>& slot = held_->slots[i];
    budget_.take(needed[i], kInput, "the values of its layers");
    if (slot.size() < needed[i].count()) slot.resize(needed[i].count());
  }
}

}  // namespace scn
