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

void CpuExecutor::begin_frame() {
  if (!held_) held_ = std::make_unique<FrameMemory>(plan_);
  budget_.go_back(loaded_);
}

void CpuExecutor::index_input(const FrameView& frame) {
  const Network& net = plan_.network;
  int32_t batch = frame.batch ? frame.batch : net.batch;
  if (batch == 0) {
    int32_t last = 0;
    for (int64_t i = 0; i < frame.sites; ++i) last = std::max(last, frame.indices[i].batch);
    // INT32_MAX is no batch index: it is refused as one
    batch = last == std::numeric_limits<int32_t>::max() ? last : last + 1;
  }
  held_->batch = batch;
  budget_.take(SiteIndex::bitmap_bytes(net.sets[0].shape, batch), kInput, "the index of its grid");
  budget_.take(Size(frame.sites) * (3 * sizeof(Site)), kInput, "its sites");
  index_sites(frame.indices, frame.sites, net.sets[0].shape, batch, kInput, pool_, &held_->sets[0],
              &held_->order);
}

/// Every map depends on the indices alone; maps are numbered in an order in which each finds its input sites.
void CpuExecutor::build_maps(StageTimer& watch) {
  const Network& net = plan_.network;
  std::vector<SiteSet>& sets = held_->sets;
  for (size_t i = 0; i < net.maps.size(); ++i) {
    const MapSpec& spec = net.maps[i];
    KernelMap& map = held_->maps[i];
    const SiteSet &input = sets[size_t(spec.input_set)], &output = sets[size_t(spec.output_set)];
    const char* kind = spec.partner >= 0 ? "inverse_map" : spec.geometry.subm ? "subm_map" : "conv_map";
    if (net.sets[size_t(spec.output_set)].map == int(i)) {
      make_sites(i);
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

/// The output sites of a map and of all later ones that make the same set, whose inputs exist already.
void CpuExecutor::make_sites(size_t map) {
  const std::vector<MapSpec>& maps = plan_.network.maps;
  const MapSpec& spec = maps[map];
  SiteSet& output = held_->sets[size_t(spec.output_set)];
  budget_.take(SiteIndex::bitmap_bytes(spec.geometry.output_shape, held_->batch), spec.layer,
               "the index of its grid");
  begin_output_sites(spec.geometry.output_shape, held_->batch, pool_, &output);
  for (size_t i = map; i < maps.size(); ++i) {
    if (!maps[i].makes_sites() || maps[i].output_set != spec.output_set) continue;
    const SiteSet& input = held_->sets[size_t(maps[i].input_set)];
    const Size sorted = cells_to_sort(input, maps[i].geometry, reach_[i]) * sizeof(int64_t);
    budget_.take(sorted, spec.layer, "the cells that it reaches");
    mark_output_sites(input, reach_[i], pool_, &output);
  }
  finish_output_sites(spec.bound, spec.layer, pool_, &output);
  budget_.take(Size(output.size()) * sizeof(Site), spec.layer, "its sites");
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
    LineVector<char>& slot = held_->slots[i];
    budget_.take(needed[i], kInput, "the values of its layers");
    if (slot.size() < needed[i].count()) slot.resize(needed[i].count());
  }
}

BufferBytes CpuExecutor::buffer_bytes() const {
  BufferBytes b;
  for (const PreparedWeights& w : weights_) {
    b.weights += int64_t(
        w.int8.capacity() + w.groups.capacity() + 2 * w.shifts.capacity() +
        4 * (w.floats.capacity() + w.offset_sums.capacity() + w.scale.capacity() + w.bias.capacity()));
  }
  b.activations = pool_.scratch_bytes();
  if (!held_) return b;
  for (const LineVector<char>& slot : held_->slots) b.activations += int64_t(slot.capacity());
  b.activations += held_->half.bytes() + held_->floats.bytes();
  b.activations += held_->global_pool.bytes();
  for (const KernelMap& map : held_->maps) b.kernel_maps += map.bytes();
  for (const SiteSet& set : held_->sets)
    b.sites += set.index.bytes() + set.given.bytes() + int64_t(set.sites.capacity() * sizeof(Site));
  b.sites += held_->points.bytes() + int64_t(held_->order.capacity() * sizeof(int32_t));
  return b;
}

}  // namespace scn
