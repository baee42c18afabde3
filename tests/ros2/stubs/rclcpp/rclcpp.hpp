// SPDX-License-Identifier: Apache-2.0
// A stub: as much of the ROS 2 header of this name as the skeleton node uses, so that a compiler can check
// it.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string>

namespace rclcpp {

struct QoS {};
struct SensorDataQoS : QoS {};
struct Logger {};
inline Logger get_logger(const char*) { return {}; }

template <typename Message>
struct Publisher {
  using SharedPtr = std::shared_ptr<Publisher>;
  void publish(const Message&) {}
};

template <typename Message>
struct Subscription {
  using SharedPtr = std::shared_ptr<Subscription>;
};

class Node {
 public:
  explicit Node(const std::string&) {}
  template <typename Parameter>
  Parameter declare_parameter(const std::string&, const Parameter& value) {
    return value;
  }
  template <typename Message>
  typename Publisher<Message>::SharedPtr create_publisher(const std::string&, const QoS&) {
    return std::make_shared<Publisher<Message>>();
  }
  template <typename Message>
  typename Subscription<Message>::SharedPtr create_subscription(
      const std::string&, const QoS&, std::function<void(std::shared_ptr<const Message>)>) {
    return std::make_shared<Subscription<Message>>();
  }
  Logger get_logger() const { return {}; }
};

inline void init(int, char**) {}
inline void shutdown() {}
inline void spin(const std::shared_ptr<Node>&) {}

}  // namespace rclcpp

#define RCLCPP_ERROR(logger, ...) (static_cast<void>(logger), std::fprintf(stderr, __VA_ARGS__))
#define RCLCPP_FATAL(logger, ...) (static_cast<void>(logger), std::fprintf(stderr, __VA_ARGS__))
