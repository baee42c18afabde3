// SPDX-License-Identifier: Apache-2.0
// Where kernel maps and storages lie in one block of memory that is taken once, before any frame.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/plan.h"

namespace scn {

struct DeviceLayout {
  std::vector<int64_t> maps, storages;  // offsets, by map and by storage
  int64_t bytes = 0;
};

/// `map_bytes`: of each map; `capacities`: most sites of each set. All maps are made at the beginning of a
/// frame; a step's kernel writes nothing before all earlier ones have ended, so what a step writes may lie
/// where the step before found its map.
DeviceLayout lay_out(const Plan& plan, const std::vector<int64_t>& map_bytes,
                     const std::vector<int64_t>& capacities);

}  // namespace scn
