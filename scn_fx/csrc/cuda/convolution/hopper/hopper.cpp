// SPDX-License-Identifier: Apache-2.0
// Which instance of Hopper's convolution serves a layer, and how its shared memory is divided.
#include "cuda/convolution/hopper/hopper.h"

#include <algorithm>

#include "cuda/convolution/hopper/kernels.h"
#include "cuda/convolution/k_order.h"
#include "cuda/convolution/launch_config.h"

namespace scn::cuda::hopper {
namespace {

using FindKernel = const void* (*)(const HopperVariant& variant);

int32_t columns_of(const HopperVariant& v) { return v.pair ? 2 * kLargestBlock : kLargestBlock; }
int32_t group_bytes(const KOrder& order, const HopperVariant& v) {
  return columns_of(v) * order.unit_bytes() * kHopperDepth;
}

/// Divides shared memory for `warpgroups` and as many slots of weights as fit; false if there is no room for
/// those of a block of units.
bool divide(const KOrder& order, const HopperVariant& v, int32_t warpgroups, int32_t limit,
            HopperLayout* layout) {
  // Entries behind the map's last: of padding units, and of the one whose entry is read ahead.
  const int32_t spare = v.block * v.offsets, groups_of_block = v.block / kHopperDepth;
  const int32_t volume = order.volume;
  const auto up = [](int32_t n) { return (n + 127) / 128 * 128; };
  HopperLayout l{};
  l.groups = order.units(v.block) / kHopperDepth;
  l.bases = bases_at(volume) + spare * kTileRows * 2;
  l.table = up(l.bases + ((volume + 3) / 4 * 4 + spare) * 4);
  const int32_t room = v.pair ? kExchangedBytes : v.finish == FinishKind::kHalfDense ? kCellBytes : 0;
  const int32_t barriers = v.pair ? 3 * warpgroups : warpgroups;  // beside those of slots
  const int32_t rest = warpgroups * (l.table + room) + 2 * kLargestBlock * 4 + 8 * (2 * l.groups + barriers);
  l.slots = std::min(l.groups, (limit - rest) / group_bytes(order, v));
  if (l.slots < (v.ring ? groups_of_block : l.groups)) return false;
  l.exchange_at = up(l.slots * group_bytes(order, v));
  l.table_at = l.exchange_at + warpgroups * room;
  l.scale_at = l.table_at + warpgroups * l.table;
  l.barrier_at = l.scale_at + 2 * kLargestBlock * 4;
  l.total = l.barrier_at + 8 * ((v.ring ? 2 : 1) * l.slots + barriers);
  *layout = l;
  return l.total <= limit;
}

/// Takes a variant, if there is such an instance and its layout fits.
bool take(FindKernel find, const HopperVariant& v, const KOrder& order, const DeviceLimits& limits,
          ConvConfig* c) {
  const void* const symbol = find(v);
  if (!symbol) return false;
  // Resident weights that leave room for one or two warpgroups do worse than a ring with three.
  int32_t warpgroups = v.ring ? v.ring : kWarpgroups;
  const int32_t fewest = v.ring ? 1 : 3;
  HopperLayout layout{};
  while (!divide(order, v, warpgroups, limits.shared_bytes, &layout)) {
    if (--warpgroups < fewest) return false;
  }
  c->symbol = symbol;
  c->finish = v.finish;
  c->block = columns_of(v);
  c->cluster = v.pair ? 2 : 1;
  c->unit_offsets = v.offsets;
  c->unit_bytes = order.unit_bytes();
  c->units = order.units(v.block);
  c->place = v.ring ? WeightPlace::kRing : WeightPlace::kResident;
  c->slots = layout.slots;
  c->packed_bytes = (Size(c->padded) * c->units * c->cluster * order.unit_bytes()).value();
  c->threads = warpgroups * 128;
  c->shared_bytes = layout.total;
  c->block_rows = warpgroups * kTileRows;
  c->set_layout(layout);
  return true;
}

}  // namespace

bool suits(const ConvProblem& p, const DeviceLimits& limits, ConvConfig* config) {
  if (config->padded < kLargestBlock) return false;
  const KOrder order{p.offsets, p.in_bytes};
  HopperVariant v{};
  v.offsets = unit_offsets(p.in_bytes);
  v.parts = unit_parts(p.in_bytes);
  v.block = order.units() <= kHopperDepth ? kHopperDepth : kHopperBlock;
  const bool one_pass = p.in_bytes <= order.unit_bytes() || v.parts == 1;
  const bool int8 = is_int8(p);
  for (const bool exact : {true, false}) {
    const FindKernel find =
        exact ? (int8 ? int8_kernel : half_kernel) : (int8 ? any_int8_kernel : any_half_kernel);
    v.finish = exact ? p.finish : FinishKind::kAny;
    for (const int32_t ring : {0, kWarpgroups, kWarpgroups - 1}) {
      // Three warpgroups of a block have registers for all that they hold; four spill.
      if (ring == kWarpgroups && config->padded > kLargestBlock) continue;
      v.ring = ring;
      for (const bool pass : {true, false}) {
        if (pass && !one_pass) continue;
        v.one_pass = pass;
        if (take(find, v, order, limits, config)) return true;
      }
    }
  }
  return false;
}

bool pair_suits(const ConvProblem& p, const DeviceLimits& limits, ConvConfig* config) {
  // With few offsets, exchanging sums takes longer than what is saved; so it does, as measured, with float16
  // rows of 128 bytes.
  const int32_t least = is_int8(p) ? 2 * kPartBytes : 4 * kPartBytes;
  if (config->padded % (2 * kLargestBlock) || p.in_bytes < least || p.in_bytes > 4 * kPartBytes) return false;
  if (p.offsets < kHopperBlock || p.finish == FinishKind::kAny) return false;
  const KOrder half{p.offsets, p.in_bytes / 2};
  HopperVariant v{};
  v.offsets = unit_offsets(half.row_bytes);
  v.parts = unit_parts(half.row_bytes);
  v.block = kPairBlock[v.parts];
  v.ring = kPairWarpgroups;
  v.finish = p.finish;
  v.one_pass = v.pair = true;
  return take(pair_kernel, v, half, limits, config);
}

void launch(const ConvConfig& config, const ConvCall& call, cudaStream_t stream) {
  launch_tensor(config, call, config.layout<HopperLayout>(), stream);
}

}  // namespace scn::cuda::hopper
