// SPDX-License-Identifier: Apache-2.0
// Tables of sets as kernel parameters.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/bounds.h"
#include "cuda/views.h"

namespace scn::cuda {

struct SetTable {
  int32_t count;
  SitesView set[kMaxSets];
};

inline SetTable table_of(const std::vector<SitesView>& sets) {
  SetTable table{};
  table.count = int32_t(sets.size());
  std::copy(sets.begin(), sets.end(), table.set);
  return table;
}

}  // namespace scn::cuda
