// SPDX-License-Identifier: Apache-2.0
// A stub: as much of the ROS 2 header of this name as the skeleton node uses, so that a compiler can check
// it.
#pragma once

#include <cstdint>
#include <std_msgs/msg/header.hpp>
#include <string>
#include <vector>

namespace sensor_msgs::msg {

struct Image {
  std_msgs::msg::Header header;
  uint32_t height = 0, width = 0;
  std::string encoding;
  uint8_t is_bigendian = 0;
  uint32_t step = 0;
  std::vector<uint8_t> data;
};

}  // namespace sensor_msgs::msg
