// SPDX-License-Identifier: Apache-2.0
#include "plan_file/plan_file.h"

#include <utility>

#include "core/sizes.h"
#include "core/xxh64.h"
#include "onnx/regular_file.h"
#include "plan_file/stored_model.h"

namespace scn {
namespace {

// The first byte is no text, and line ends and the end of DOS's files find transfers that change them; so
// does PNG.
constexpr char kMagic[] = {'\x89', 'S', 'C', 'N', 'P', '\r', '\n', '\x1a'};
constexpr size_t kHead = sizeof(kMagic) + sizeof(uint32_t) + sizeof(uint64_t);
constexpr size_t kChecksum = sizeof(uint64_t);
constexpr int64_t kMostBytes = (int64_t(1) << 31) - 1;  // as of ONNX files
constexpr size_t kDigest = 64;                          // hexadecimal digits

void write_info(const PlanInfo& info, ByteWriter& out) {
  out.text(info.library);
  out.text(info.kind);
  out.text(info.onnx_sha256);
  out.number(info.onnx_bytes);
  out.number(uint8_t(info.float32));
  for (const int32_t size : info.spatial_shape) out.number(size);
  out.number(info.max_batch);
  out.number(info.max_sites);
}

PlanInfo read_info(ByteReader& in) {
  PlanInfo info;
  info.library = in.text();
  info.kind = in.text();
  info.onnx_sha256 = in.text();
  if (info.onnx_sha256.size() != kDigest) ByteReader::corrupt("a SHA-256 that is none");
  info.onnx_bytes = in.number<int64_t>();
  info.float32 = in.number<uint8_t>() != 0;
  for (int32_t& size : info.spatial_shape) size = in.number<int32_t>();
  info.max_batch = in.number<int32_t>();
  info.max_sites = in.number<int64_t>();
  if (info.onnx_bytes < 0 || info.max_batch < 0 || info.max_sites < 0)
    ByteReader::corrupt("a negative number where there is none");
  return info;
}

bool is_plan(const std::string& bytes) {
  return bytes.size() >= sizeof(kMagic) && !std::memcmp(bytes.data(), kMagic, sizeof(kMagic));
}

/// Checks all that every plan has, and gives what lies between size and checksum.
ByteReader checked_content(const std::string& bytes) {
  if (bytes.size() < kHead + kChecksum) {
    fail(ErrorKind::kPlan, "The plan is cut off: it has ", bytes.size(), " bytes, the shortest one ",
         kHead + kChecksum, ". Copy it again.");
  }
  ByteReader head({bytes.data() + sizeof(kMagic), kHead - sizeof(kMagic)});
  const uint32_t format = head.number<uint32_t>();
  if (format != kPlanFormat) {
    fail(ErrorKind::kPlan, "The plan has format ", format, ", this version of the library (", SCN_FX_VERSION,
         ") reads format ", kPlanFormat, ". Make the plan again from its ONNX file with this version.");
  }
  const uint64_t size = head.number<uint64_t>();
  if (size != bytes.size()) {
    fail(ErrorKind::kPlan, "The plan says that it has ", size, " bytes, the file has ", bytes.size(),
         ". Copy it again.");
  }
  const size_t end = bytes.size() - kChecksum;
  const uint64_t said = ByteReader({bytes.data() + end, kChecksum}).number<uint64_t>();
  if (said != xxh64(bytes.data(), end)) {
    fail(ErrorKind::kPlan,
         "The plan is damaged: its checksum is that of other bytes. Copy it again, or make it again from its "
         "ONNX file.");
  }
  return ByteReader({bytes.data() + kHead, end - kHead});
}

OnnxModel parse_plan(std::string bytes) {
  OnnxModel model;
  model.buffer = std::move(bytes);
  ByteReader in = checked_content(model.buffer);
  auto plan = std::make_shared<StoredPlan>();
  plan->info = read_info(in);
  read_model(in, model);
  const size_t nodes = in.count(sizeof(uint32_t), model.nodes.size());
  for (size_t i = 0; i < nodes; ++i) plan->weights.push_back(in.raw(in.count(1, in.left())));
  plan->weights.resize(model.nodes.size());
  in.expect_end();
  model.plan = std::move(plan);
  return model;
}

template <typename Result>
Result named(const std::string& path, Result (*read)(std::string)) {
  try {
    return read(read_regular_file(path, kMostBytes));
  } catch (const Error& e) {
    fail(e.kind(), path, ": ", e.what());
  }
}

PlanInfo parse_info(std::string bytes) {
  if (!is_plan(bytes)) {
    fail(ErrorKind::kPlan, "Expected a plan, as save_plan() writes it; the file is none.");
  }
  ByteReader in = checked_content(bytes);
  return read_info(in);
}

}  // namespace

OnnxModel parse_model(std::string bytes) {
  return is_plan(bytes) ? parse_plan(std::move(bytes)) : parse_onnx(std::move(bytes));
}

OnnxModel load_model(const std::string& path) { return named(path, parse_model); }

PlanInfo read_plan_info(const std::string& path) { return named(path, parse_info); }

std::string plan_file_bytes(const OnnxModel& model, const PlanInfo& info,
                            const std::vector<std::string>& weights) {
  ByteWriter content;
  write_info(info, content);
  write_model(model, weights.empty(), content);
  content.count(weights.size());
  for (const std::string& each : weights) content.text(each);
  const Size size = Size(content.bytes().size()) + kHead + kChecksum;
  if (size > kMostBytes) {
    fail(ErrorKind::kArgument, "The plan would have ", size.text(), " bytes; plans have ", kMostBytes,
         " at most.");
  }
  ByteWriter out;
  out.raw(kMagic, sizeof(kMagic));
  out.number(kPlanFormat);
  out.number(uint64_t(size.value()));
  out.raw(content.bytes().data(), content.bytes().size());
  out.number(xxh64(out.bytes().data(), out.bytes().size()));
  return out.take();
}

}  // namespace scn
