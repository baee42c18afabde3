// SPDX-License-Identifier: Apache-2.0
// The points of a sensor_msgs/PointCloud2 as rows of float32, whatever the layout of its records.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace scn_fx_ros {

struct Points {
  int64_t count = 0;
  int32_t columns = 0;
  std::vector<float> values;  // [count, columns]
  int64_t left_out = 0;       // points that were not finite: returns that the sensor did not get
};

/// As sensor_msgs/PointField numbers its types.
enum PointType : uint8_t { kInt8 = 1, kUint8, kInt16, kUint16, kInt32, kUint32, kFloat32, kFloat64 };

/// Bytes of a value; 0 for a type that there is not.
inline size_t size_of_type(uint8_t type) {
  switch (type) {
    case kInt8:
    case kUint8:
      return 1;
    case kInt16:
    case kUint16:
      return 2;
    case kInt32:
    case kUint32:
    case kFloat32:
      return 4;
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

/// The value of a field: of any type, in either byte order, anywhere in memory.
inline float value_at(const uint8_t* at, uint8_t type, bool big_endian) {
  const size_t size = size_of_type(type);
  uint64_t bits = 0;
  for (size_t i = 0; i < size; ++i) bits |= uint64_t(at[big_endian ? size - 1 - i : i]) << 8 * i;
  switch (type) {
    case kInt8:
      return float(int8_t(bits));
    case kInt16:
      return float(int16_t(bits));
    case kInt32:
      return float(int32_t(bits));
    case kFloat32: {
      const uint32_t half = uint32_t(bits);
      float value;
      std::memcpy(&value, &half, sizeof value);
      return value;
    }
    case kFloat64: {
      double value;
      std::memcpy(&value, &bits, sizeof value);
      return float(value);
    }
    default:
      return float(bits);
  }
}

/// Which field a column takes; null for a column of zeros.
template <typename Cloud>
const auto* field_of(const Cloud& cloud, const std::string& name) {
  const decltype(&cloud.fields[0]) none = nullptr;
  if (name == "0") return none;
  std::string known;
  for (const auto& field : cloud.fields) {
    if (field.name == name) {
      const size_t size = size_of_type(field.datatype);
      if (size == 0 || field.count == 0 || uint64_t(field.offset) + size > cloud.point_step) {
        throw std::runtime_error("The field '" + name + "' of the cloud has datatype " +
                                 std::to_string(field.datatype) + " at offset " +
                                 std::to_string(field.offset) + ", which does not fit into records of " +
                                 std::to_string(cloud.point_step) + " bytes. Check who publishes it.");
      }
      return &field;
    }
    known += (known.empty() ? "'" : ", '") + field.name + "'";
  }
  throw std::runtime_error("The cloud has no field '" + name + "', it has " +
                           (known.empty() ? "none" : known) +
                           ". Set the parameter `columns` to the fields that the network was trained on, in "
                           "their order; '0' is a column of zeros.");
}

/// A row for each point of the cloud, with the fields `columns` in this order ("0": zeros). Points with a
/// value that is not finite are left out, as sensors write them for what they do not see. `Cloud` is
/// sensor_msgs::msg::PointCloud2. Throws std::runtime_error for a cloud that contradicts itself.
template <typename Cloud>
Points read_points(const Cloud& cloud, const std::vector<std::string>& columns) {
  const uint64_t least = uint64_t(cloud.width) * cloud.point_step;
  if (cloud.point_step == 0 || cloud.row_step < least ||
      cloud.data.size() < uint64_t(cloud.height) * cloud.row_step) {
    throw std::runtime_error("The cloud has " + std::to_string(cloud.height) + " rows of " +
                             std::to_string(cloud.row_step) + " bytes for " + std::to_string(cloud.width) +
                             " points of " + std::to_string(cloud.point_step) + " bytes, and " +
                             std::to_string(cloud.data.size()) +
                             " bytes in all, which do not fit together. Check who publishes it.");
  }
  std::vector<decltype(field_of(cloud, columns[0]))> fields;
  for (const std::string& name : columns) fields.push_back(field_of(cloud, name));
  Points points;
  points.columns = int32_t(columns.size());
  std::vector<float> row(columns.size());
  for (uint64_t y = 0; y < cloud.height; ++y) {
    for (uint64_t x = 0; x < cloud.width; ++x) {
      const uint8_t* const record = cloud.data.data() + y * cloud.row_step + x * cloud.point_step;
      bool finite = true;
      for (size_t c = 0; c < fields.size(); ++c) {
        row[c] =
            fields[c] ? value_at(record + fields[c]->offset, fields[c]->datatype, cloud.is_bigendian) : 0;
        finite = finite && std::isfinite(row[c]);
      }
      if (finite) {
        points.values.insert(points.values.end(), row.begin(), row.end());
        ++points.count;
      } else {
        ++points.left_out;
      }
    }
  }
  return points;
}

}  // namespace scn_fx_ros
