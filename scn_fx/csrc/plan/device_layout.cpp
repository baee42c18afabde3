// SPDX-License-Identifier: Apache-2.0
#include "plan/device_layout.h"

#include "core/sizes.h"
#include "plan/arena.h"

namespace scn {

DeviceLayout lay_out(const Plan& plan, const std::vector<int64_t>& map_bytes,
                     const std::vector<int64_t>& capacities) {
  const int steps = int(plan.steps.size());
  std::vector<int> last(map_bytes.size(),
                        steps);  // of a map that no step reads: nobody waits until it is made
  for (int i = 0; i < steps; ++i) {
    for (int map : plan.maps_of(plan.steps[size_t(i)])) last[size_t(map)] = i;
  }
  std::vector<Span> spans;
  for (size_t i = 0; i < map_bytes.size(); ++i) spans.push_back({map_bytes[i], 0, last[i], 0});
  for (const Storage& s : plan.storages)
    spans.push_back({(Size(capacities[size_t(s.set)]) * s.row_bytes).value(), s.first, s.last, 0});
  DeviceLayout layout;
  layout.bytes = place_spans(spans);
  for (size_t i = 0; i < spans.size(); ++i)
    (i < map_bytes.size() ? layout.maps : layout.storages).push_back(spans[i].offset);
  return layout;
}

}  // namespace scn
