// SPDX-License-Identifier: Apache-2.0
// A stub: as much of the ROS 2 header of this name as the skeleton node uses, so that a compiler can check
// it.
#pragma once

#include <cstdint>
#include <string>

namespace std_msgs::msg {

struct Time {
  int32_t sec = 0;
  uint32_t nanosec = 0;
};

struct Header {
  Time stamp;
  std::string frame_id;
};

}  // namespace std_msgs::msg
