// SPDX-License-Identifier: Apache-2.0
// A stub: as much of the ROS 2 header of this name as the skeleton node uses, so that a compiler can check
// it.
#pragma once

#include <cstdint>
#include <memory>
#include <std_msgs/msg/header.hpp>
#include <string>
#include <vector>

namespace sensor_msgs::msg {

struct PointField {
  std::string name;
  uint32_t offset = 0;
  uint8_t datatype = 0;
  uint32_t count = 0;
};

struct PointCloud2 {
  using ConstSharedPtr = std::shared_ptr<const PointCloud2>;
  std_msgs::msg::Header header;
  uint32_t height = 0, width = 0;
  std::vector<PointField> fields;
  bool is_bigendian = false;
  uint32_t point_step = 0, row_step = 0;
  std::vector<uint8_t> data;
  bool is_dense = false;
};

}  // namespace sensor_msgs::msg
