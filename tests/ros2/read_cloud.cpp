// SPDX-License-Identifier: Apache-2.0
// Reads a cloud that a test has written, and writes its points:
//
//   read_cloud CLOUD POINTS COLUMN...
//
// CLOUD: uint32 height, width, point_step, row_step, big-endian, number of fields; per field uint32 offset,
// datatype, count and length of the name, then the name; the rest is the data. POINTS: float32 [count,
// columns]. Prints how many points were left out.
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <sensor_msgs/msg/point_cloud2.hpp>
#include <string>
#include <vector>

#include "point_cloud2.h"

int main(int argc, char** argv) {
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  size_t at = 0;
  const auto number = [&] {
    uint32_t value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return value;
  };
  sensor_msgs::msg::PointCloud2 cloud;
  cloud.height = number();
  cloud.width = number();
  cloud.point_step = number();
  cloud.row_step = number();
  cloud.is_bigendian = number() != 0;
  cloud.fields.resize(number());
  for (auto& field : cloud.fields) {
    field.offset = number();
    field.datatype = uint8_t(number());
    field.count = number();
    const size_t size = number();
    field.name.assign(bytes.data() + at, size);
    at += size;
  }
  cloud.data.assign(bytes.begin() + int64_t(at), bytes.end());
  try {
    const auto points = scn_fx_ros::read_points(cloud, std::vector<std::string>(argv + 3, argv + argc));
    std::ofstream(argv[2], std::ios::binary)
        .write(reinterpret_cast<const char*>(points.values.data()),
               std::streamsize(points.values.size() * sizeof(float)));
    std::printf("%lld\n", static_cast<long long>(points.left_out));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return 1;
  }
  return 0;
}
