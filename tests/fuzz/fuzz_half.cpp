// SPDX-License-Identifier: Apache-2.0
// float16 from and to float32: half.h and the kernels of every instruction set against arithmetic in double.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/kernels/kernels.h"
#include "scn_fx/half.h"
#include "tally.h"

namespace {

/// The value of float16 bits, by its definition.
double value_of(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                           : exponent == 0 ? std::ldexp(fraction, -24)
                                           : std::ldexp(1024 + fraction, exponent - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}

/// Whether no float16 is nearer to `f`, and of two equally near ones the even one was taken.
bool nearest(float f, uint16_t h) {
  if (std::isnan(f)) return std::isnan(value_of(h));
  if (bool(h & 0x8000) != std::signbit(f)) return false;
  const double size = std::fabs(double(f)), limit = 65536.0;
  const uint16_t m = h & 0x7fff;
  // infinity stands for 65536 when distances are compared
  const auto at = [&](uint16_t bits) { return bits == 0x7c00 ? limit : value_of(bits); };
  if (m > 0x7c00) return false;
  if (m == 0x7c00 && size >= limit) return true;
  const double error = std::fabs(at(m) - size);
  for (const int other : {m - 1, m + 1}) {
    if (other < 0 || other > 0x7c00) continue;
    const double theirs = std::fabs(at(uint16_t(other)) - size);
    if (theirs < error || (theirs == error && m % 2)) return false;
  }
  return true;
}

std::vector<const scn::Kernels*> tables() {
  std::vector<const scn::Kernels*> found;
  const std::string names = scn::supported_isas() + " ";
  for (size_t at = 0; at < names.size(); at = names.find(' ', at) + 1) {
    setenv("SCN_FX_ISA", names.substr(at, names.find(' ', at) - at).c_str(), 1);
    found.push_back(&scn::select_kernels());
  }
  unsetenv("SCN_FX_ISA");
  return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ++fuzz::tally().inputs;
  static const std::vector<const scn::Kernels*> all = tables();
  const size_t count = size / 4;
  std::vector<float> floats(count), back(count);
  if (count) std::memcpy(floats.data(), data, count * 4);
  std::vector<uint16_t> halves(count);
  for (const scn::Kernels* kernels : all) {
    const int64_t lost = kernels->float_to_half(floats.data(), halves.data(), int64_t(count));
    kernels->half_to_float(halves.data(), back.data(), int64_t(count));
    int64_t expected = 0;
    for (size_t i = 0; i < count; ++i) {
      const double value = value_of(halves[i]);
      FUZZ_CHECK(nearest(floats[i], halves[i]), "%s: %.9g became %04x", kernels->name, double(floats[i]),
                 halves[i]);
      FUZZ_CHECK(std::isnan(value) ? std::isnan(back[i]) : double(back[i]) == value, "%s: %04x became %.9g",
                 kernels->name, halves[i], double(back[i]));
      const uint16_t plain = scn::float_to_half(floats[i]);
      FUZZ_CHECK(plain == halves[i] || std::isnan(value), "half.h: %.9g became %04x", double(floats[i]),
                 plain);
      expected += !std::isfinite(value);
    }
    FUZZ_CHECK(lost == expected, "%s: %lld values of %zu became infinite, it says %lld", kernels->name,
               (long long)expected, count, (long long)lost);
  }
  fuzz::tally().frames += int64_t(count);
  return 0;
}
