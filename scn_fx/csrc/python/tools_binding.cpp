// SPDX-License-Identifier: Apache-2.0
#include "python/tools_binding.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <tuple>

#include "core/memory_budget.h"
#include "cpu/kernels/kernels.h"
#include "plan/arena.h"
#include "python/caller.h"
#include "python/gil.h"
#include "python/shared_pool.h"

namespace scn::python {
namespace {

/// A bfloat16 array of any library in host memory, in any order, as float32: exact.
NumpyArray widen_bfloat16(const nb::ndarray<nb::ro, nb::device::cpu>& a) {
  if (a.dtype().code != uint8_t(nb::dlpack::dtype_code::Bfloat) || a.dtype().bits != 16 ||
      a.dtype().lanes != 1) {
    fail(ErrorKind::kSite, "expected bfloat16, got ", dtype_name(a), ".");
  }
  const Size count = element_count(a);
  MemoryBudget::of_operator().take(count * sizeof(float), "A bfloat16 array", "its values as float32");
  const uint16_t* const from = static_cast<const uint16_t*>(a.data());
  std::unique_ptr<float[]> out(new float[count.count()]);
  std::vector<size_t> shape;
  for (size_t axis = 0; axis < a.ndim(); ++axis) shape.push_back(a.shape(axis));
  for (size_t i = 0; i < count.count(); ++i) {
    size_t rest = i;
    int64_t at = 0;
    for (size_t axis = a.ndim(); axis-- > 0;) {
      at += int64_t(rest % shape[axis]) * a.stride(axis);
      rest /= shape[axis];
    }
    const uint32_t bits = uint32_t(from[at]) << 16;
    std::memcpy(&out[i], &bits, sizeof(bits));
  }
  return to_numpy(std::move(out), shape, float_dtype(32));
}

/// Operations per second of multiply-adds without memory traffic on `threads` threads, for about `seconds`.
double measure_peak(const std::string& kind, Integer threads, double seconds) {
  constexpr double kMostSeconds = 600.0;
  if (kind != "fp32" && kind != "int8")
    fail(ErrorKind::kArgument, "kind must be 'fp32' or 'int8', got '", kind, "'.");
  if (!(seconds > 0.0 && seconds <= kMostSeconds)) {
    fail(ErrorKind::kArgument, "seconds must be positive and at most ", kMostSeconds, ", got ", seconds, ".");
  }
  const int workers = checked_threads(threads.number, 1);
  using Clock = std::chrono::steady_clock;
  const GilRelease release;
  const Kernels& kernels = select_kernels();
  const auto loop = kind == "fp32" ? kernels.float_loop : kernels.int8_loop;
  std::vector<double> rates(static_cast<size_t>(workers));
  ThreadPool pool(workers);
  pool.for_each(workers, 1, [&](int64_t begin, int64_t, int) {
    const Clock::time_point start = Clock::now();
    double operations = 0.0, elapsed = 0.0;
    while (elapsed < seconds) {
      operations += double(loop(1 << 18));
      elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    }
    rates[size_t(begin)] = operations / elapsed;
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

/// Offsets of buffers (bytes, first and last step) in an arena, and the arena's bytes.
std::pair<std::vector<int64_t>, int64_t> place_spans_list(
    const std::vector<std::tuple<Integer, Integer, Integer>>& spans) {
  std::vector<Span> placed;
  Size all = 0;
  for (const auto& [bytes, first, last] : spans) {
    if (bytes.number < 0) fail(ErrorKind::kArgument, "A buffer of ", bytes.number, " bytes has no place.");
    all += Size(bytes.number).rounded_up(kArenaAlignment);
    placed.push_back(
        {bytes.number, narrow(first.number, "The first step"), narrow(last.number, "The last step"), 0});
  }
  if (all.too_large())
    fail(ErrorKind::kMemory, "The buffers together have more bytes than 63 bits can number.");
  const int64_t total = place_spans(placed);
  std::vector<int64_t> offsets;
  for (const Span& span : placed) offsets.push_back(span.offset);
  return {offsets, total};
}

PlainData cpu_features() {
  nb::dict d;
  d["isa"] = select_kernels().name;
  nb::list supported;
  const std::string all = supported_isas();
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find(' ', begin), all.size());
    supported.append(all.substr(begin, end - begin));
    begin = end + 1;
  }
  d["supported"] = supported;
  return d;
}

}  // namespace

void bind_tools(nb::module_& m) {
  using namespace nb::literals;
  m.def("widen_bfloat16", widen_bfloat16, "array"_a,
        "A bfloat16 DLPack array in host memory as float32. SiteError: another dtype; TypeError: it "
        "cannot\nbe read.");
  m.def("place_spans", place_spans_list, "spans"_a,
        "Offsets of buffers (bytes, first and last step) in one arena, and its bytes (plan/arena.h).");
  m.def("measure_peak", measure_peak, "kind"_a, "threads"_a, "seconds"_a);
  m.def("cpu_features", cpu_features);
}

}  // namespace scn::python
