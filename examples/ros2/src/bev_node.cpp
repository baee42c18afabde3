// SPDX-License-Identifier: Apache-2.0
// A skeleton of a ROS 2 node: point clouds in, the bird's-eye-view map to your head. It compiles against stub
// headers in the tests of scn-fx, and was never run under ROS.
//
// Parameters: model (path of a plan or an ONNX file), columns (fields of the cloud in the network's order,
// "0" for zeros), range (six numbers) and voxel (three): the network's grid, x, y, z in metres, if the file
// does not record it; threads, cuda. Subscribes to ~/points; publishes ~/bev, the strongest channel of each
// cell, to look at.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <memory>
#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <sensor_msgs/msg/point_cloud2.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "point_cloud2.h"
#include "scn_fx/engine.h"
#include "scn_fx/half.h"

namespace scn_fx_ros {

using Cloud = sensor_msgs::msg::PointCloud2;
using Image = sensor_msgs::msg::Image;

class BevNode : public rclcpp::Node {
 public:
  BevNode() : Node("scn_fx_bev") {
    columns_ = declare_parameter("columns", std::vector<std::string>{"x", "y", "z", "intensity", "0"});
    const auto range = declare_parameter("range", std::vector<double>{});
    const auto voxel = declare_parameter("voxel", std::vector<double>{});
    scn::EngineOptions options;
    if (!range.empty() || !voxel.empty()) {
      scn::VoxelGrid grid;
      if (range.size() != grid.point_range.size() || voxel.size() != grid.voxel_size.size())
        throw std::runtime_error("range takes six numbers and voxel three: x, y, z in metres.");
      std::copy(range.begin(), range.end(), grid.point_range.begin());
      std::copy(voxel.begin(), voxel.end(), grid.voxel_size.begin());
      options.grid = grid;
    }
    options.threads = int(declare_parameter("threads", int64_t(0)));
    options.cuda = declare_parameter("cuda", false);
    engine_ = std::make_unique<scn::Engine>(declare_parameter("model", std::string("scn.plan")), options);
    if (size_t(engine_->input_channels()) != columns_.size()) {
      throw std::runtime_error("The network reads " + std::to_string(engine_->input_channels()) +
                               " columns, the parameter `columns` names " + std::to_string(columns_.size()) +
                               ".");
    }
    image_ = create_publisher<Image>("~/bev", rclcpp::SensorDataQoS());
    cloud_ = create_subscription<Cloud>("~/points", rclcpp::SensorDataQoS(),
                                        [this](const Cloud::ConstSharedPtr cloud) { take(*cloud); });
  }

 private:
  void take(const Cloud& cloud) {
    try {
      const std::vector<scn::Result> results = bev_of_cloud(cloud);
      use_map(results.front(), cloud);
    } catch (const std::exception& error) {  // the next cloud is as good as on a new engine
      RCLCPP_ERROR(get_logger(), "%s", error.what());
    }
  }

  std::vector<scn::Result> bev_of_cloud(const Cloud& cloud) {
    const Points read = read_points(cloud, columns_);
    scn::PointsView points;
    points.points = read.values.data();
    points.count = read.count;
    points.columns = read.columns;
    return engine_->run_points(points);
  }

  /// Your head goes here: `map` is float16 [1, channels, y, x]. A map is megabytes, too much for a topic.
  void use_map(const scn::Result& map, const Cloud& cloud) {
    if (map.sparse || map.dims.size() != 4 || !map.half)
      throw std::runtime_error("The first output of the network is no float16 map [batch, channels, y, x].");
    Image image;
    image.header = cloud.header;
    image.height = uint32_t(map.dims[2]);
    image.width = uint32_t(map.dims[3]);
    image.encoding = "32FC1";
    image.is_bigendian = false;
    image.step = image.width * uint32_t(sizeof(float));
    const size_t cells = size_t(map.dims[2]) * size_t(map.dims[3]);
    std::vector<float> strongest(cells, 0.0f);
    const uint16_t* values = reinterpret_cast<const uint16_t*>(map.data.get());
    for (size_t i = 0; i < cells * size_t(map.dims[1]); ++i)
      strongest[i % cells] = std::max(strongest[i % cells], scn::half_to_float(values[i]));
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(strongest.data());
    image.data.assign(bytes, bytes + cells * sizeof(float));
    image_->publish(image);
  }

  std::vector<std::string> columns_;
  std::unique_ptr<scn::Engine> engine_;
  rclcpp::Publisher<Image>::SharedPtr image_;
  rclcpp::Subscription<Cloud>::SharedPtr cloud_;
};

}  // namespace scn_fx_ros

int main(int argc, char** argv) {
  rclcpp::init(argc, argv);
  try {
    rclcpp::spin(std::make_shared<scn_fx_ros::BevNode>());
  } catch (const std::exception& error) {
    RCLCPP_FATAL(rclcpp::get_logger("scn_fx_bev"), "%s", error.what());
    rclcpp::shutdown();
    return 1;
  }
  rclcpp::shutdown();
  return 0;
}
