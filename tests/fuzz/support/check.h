// SPDX-License-Identifier: Apache-2.0
// What a target says when the engine is wrong although nothing crashed.
#pragma once

#include <cstdio>
#include <cstdlib>

/// Ends the process as a crash, which the fuzzer keeps the input of, unless `condition` holds.
#define FUZZ_CHECK(condition, ...)                                         \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                   \
      std::fputc('\n', stderr);                                            \
      std::abort();                                                        \
    }                                                                      \
  } while (false)
