// SPDX-License-Identifier: Apache-2.0
// Products of bytes in AVX-512 registers, and loops whose sums a compiler keeps there.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace scn {
namespace {

/// Sixteen sums. GCC 12 keeps an array of __m512i, whose lanes are of 64 bits, on the stack where the
/// intrinsics for bytes see it as lanes of 32: each product is then loaded and stored.
using Sums = int32_t __attribute__((vector_size(64)));
/// The same where they lie in memory, at any address. Not by intrinsics, whose lanes of 64 bits GCC copies to
/// lanes of 32 by way of the stack.
using StoredSums = int32_t __attribute__((vector_size(64), aligned(1), may_alias));

inline Sums load_sums(const int32_t* p) { return *reinterpret_cast<const StoredSums*>(p); }
inline void store_sums(int32_t* p, Sums v) { *reinterpret_cast<StoredSums*>(p) = v; }
inline Sums load_bytes(const int8_t* p) { return *reinterpret_cast<const StoredSums*>(p); }

/// Four unsigned bytes of a row, for each sum; signed ones are shifted by 128. In its place between products:
/// GCC would fetch those of all rows first, and have no registers left for them.
template <bool kSigned>
inline Sums four_bytes(const int8_t* p) {
  Sums x;
  if constexpr (kSigned) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    asm volatile("vpbroadcastd %1, %0" : "=v"(x) : "r"(four ^ 0x80808080u));
  } else {
    struct Four {
      int8_t bytes[4];
    };
    asm volatile("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const Four*>(p)));
  }
  return x;
}

/// f(0), f(1), ... f(kCount - 1), each of its own constant: indices of arrays that GCC is to keep in
/// registers.
template <int kCount, typename F>
[[gnu::always_inline]] inline void unrolled(const F& f) {
  if constexpr (kCount > 0) {
    unrolled<kCount - 1>(f);
    f(std::integral_constant<int, kCount - 1>{});
  }
}

/// Adds the products of four unsigned and four signed bytes to each sum, without saturation.
inline void add_products(Sums& sums, Sums x, Sums w) {
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
}

}  // namespace
}  // namespace scn
