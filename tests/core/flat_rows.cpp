// SPDX-License-Identifier: Apache-2.0
// Runs frames of a network of one or two dimensions through the public interface:
//
//   flat_rows flat.onnx space.onnx
//
// With `rows` of ndim + 1 numbers and with `indices`, the results must have the same bits. The second file is
// of three dimensions, which has no `rows`; neither has a frame that has both. Prints the dimensions.
#include <cstdio>
#include <cstring>
#include <vector>

#include "scn_fx/engine.h"

namespace {

int wrong(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  return 1;
}

template <typename Call>
bool refused(const Call& call) {
  try {
    call();
  } catch (const scn::Error& error) {
    return error.kind() == scn::ErrorKind::kArgument;
  }
  return false;
}

bool same(const scn::Result& a, const scn::Result& b) {
  int64_t bytes = a.half ? 2 : 4;
  for (const int64_t d : a.dims) bytes *= d;
  if (a.dims != b.dims || a.half != b.half || a.sites.size() != b.sites.size()) return false;
  for (const scn::Site& site : a.sites)
    if (site.z != 0) return false;
  return std::memcmp(a.data.get(), b.data.get(), size_t(bytes)) == 0 &&
         std::memcmp(a.sites.data(), b.sites.data(), a.sites.size() * sizeof(scn::Site)) == 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return wrong("usage: flat_rows flat.onnx space.onnx");
  scn::Engine flat(arguments[1]), space(arguments[2]);
  const int ndim = flat.ndim();
  for (const int64_t sites : {0, 1, 37}) {
    std::vector<int32_t> rows;
    std::vector<scn::Site> indices;
    std::vector<float> features;
    for (int64_t i = 0; i < sites; ++i) {
      const int32_t y = ndim == 2 ? int32_t(i % 5) : 0, x = int32_t(i % 7);
      const int32_t batch = ndim == 2 ? int32_t(i / 35) : int32_t(i / 7);
      rows.push_back(batch);
      if (ndim == 2) rows.push_back(y);
      rows.push_back(x);
      indices.push_back({batch, 0, y, x});
      for (int32_t c = 0; c < flat.input_channels(); ++c)
        features.push_back(float((i * 31 + c * 7) % 19) / 8 - 1);
    }
    scn::FrameView frame;
    frame.features = features.data();
    frame.sites = sites;
    frame.channels = flat.input_channels();
    frame.batch = 8;
    scn::FrameView narrow = frame;
    frame.indices = indices.data();
    narrow.rows = rows.data();
    const std::vector<scn::Result> expected = flat.run(frame), found = flat.run(narrow);
    if (expected.size() != found.size()) return wrong("another number of results");
    for (size_t i = 0; i < expected.size(); ++i)
      if (!same(found[i], expected[i])) return wrong("rows and indices give other results");
    if (sites == 0) continue;
    scn::FrameView both = frame;
    both.rows = rows.data();
    if (!refused([&] { flat.run(both); })) return wrong("a frame with rows and indices was taken");
    if (!refused([&] { space.run(narrow); }))
      return wrong("rows of a network of three dimensions were taken");
  }
  std::printf("%d and %d dimensions\n", ndim, space.ndim());
  return 0;
}
