// SPDX-License-Identifier: Apache-2.0
// Every float32 to float16, against the processor's own conversion or float16's definition:
//
//   half_bits STRIDE
//
// looks at every STRIDE-th of the 2^32 patterns, and at all of them with 1, for half.h and for the kernels of
// each instruction set that this processor has.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "scn_fx/half.h"

namespace {

/// Round to nearest even in double, where a float16 and half its last place are exact.
uint16_t expected_half(float f) {
  const uint16_t sign = std::signbit(f) ? 0x8000 : 0;
  const double size = std::fabs(double(f));
  if (size >= 65520.0) return uint16_t(sign | 0x7c00);
  const int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
  const double units = std::nearbyint(std::ldexp(size, 10 - exponent));  // of the last place
  return uint16_t(sign | (((exponent + 14) << 10) + int(units)));
}

bool is_nan(uint16_t h) { return (h & 0x7fff) > 0x7c00; }

}  // namespace

int main(int argc, char** argv) {
  const uint64_t stride = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  std::vector<const scn::Kernels*> tables;
  const std::string names = scn::supported_isas() + " ";
  for (size_t at = 0; at < names.size(); at = names.find(' ', at) + 1) {
    setenv("SCN_FX_ISA", names.substr(at, names.find(' ', at) - at).c_str(), 1);
    tables.push_back(&scn::select_kernels());
  }
  constexpr size_t kBlock = 4096;
  std::vector<float> in(kBlock);
  std::vector<uint16_t> expected(kBlock), got(kBlock);
  int64_t wrong = 0, tried = 0;
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32);) {
    size_t count = 0;
    int64_t lost = 0;
    for (; count < kBlock && bits < (uint64_t(1) << 32); ++count, bits += stride) {
      const uint32_t pattern = uint32_t(bits);
      std::memcpy(&in[count], &pattern, 4);
      expected[count] = std::isnan(in[count]) ? 0x7e00 : expected_half(in[count]);
      lost += (expected[count] & 0x7c00) == 0x7c00;
      const uint16_t plain = scn::float_to_half(in[count]);
      wrong += is_nan(expected[count]) ? !is_nan(plain) : plain != expected[count];
    }
    tried += int64_t(count);
    for (const scn::Kernels* kernels : tables) {
      wrong += kernels->float_to_half(in.data(), got.data(), int64_t(count)) != lost;
      for (size_t i = 0; i < count; ++i)
        wrong += is_nan(expected[i]) ? !is_nan(got[i]) : got[i] != expected[i];
    }
  }
  std::printf("%lld patterns, %zu instruction sets, %lld wrong\n", (long long)tried, tables.size(),
              (long long)wrong);
  return wrong != 0;
}
