// SPDX-License-Identifier: Apache-2.0
#include "cpu/convolution/config.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "core/layer.h"

namespace scn {
namespace {

int32_t padded(int32_t n, int32_t multiple) { return (n + multiple - 1) / multiple * multiple; }

using Suits = bool (*)(const ConvProblem&);

bool any(const ConvProblem&) { return true; }
bool narrow(const ConvProblem& p) {
  return p.in_channels <= 32 && padded(p.out_channels, kOutputBlock) <= 32;
}
#if defined(__x86_64__)
bool tiles(const ConvProblem& p) { return tiles_suit(padded(p.in_channels, kInputQuad), p.offsets); }
// Rows of one word of the map's masks.
bool few_unsigned(const ConvProblem& p) { return narrow(p) && p.nonnegative && p.offsets <= 64; }
// Above 8 input channels, loading and storing sums at each offset costs less than offsets that rows lack.
bool few_floats(const ConvProblem& p, int32_t outputs) {
  return !p.half && p.in_channels <= 8 && p.out_channels <= outputs;
}
bool few_floats_512(const ConvProblem& p) { return few_floats(p, 2 * kOutputBlock); }
bool few_floats_256(const ConvProblem& p) { return few_floats(p, kOutputBlock); }
#endif

/// A kernel, and the instruction sets (the names of their tables) that choose it where it suits.
template <typename Gemm>
struct Line {
  const char* name;
  const char* sets;
  Suits suits;
  const Kernels* table;
  Gemm Kernels::* gemm;
};

// Best first. The weights are packed alike for all of them.
const Line<Int8Gemm> kInt8Lines[] = {
#if defined(__x86_64__)
    {"amx tiles", "amx", tiles, &kAmxKernels, &Kernels::blocks_int8},
    {"avx512vnni rows", "amx avx512vnni", narrow, &kAvx512VnniKernels, &Kernels::rows_int8},
    {"avx512vnni blocks", "amx avx512vnni", any, &kAvx512VnniKernels, &Kernels::blocks_int8},
    {"avxvnni rows", "avxvnni", few_unsigned, &kAvxVnniKernels, &Kernels::rows_int8},
    {"avxvnni blocks", "avxvnni", any, &kAvxVnniKernels, &Kernels::blocks_int8},
    {"avx2 rows", "avx2", few_unsigned, &kAvx2Kernels, &Kernels::rows_int8},
    {"avx2 blocks", "avx2", any, &kAvx2Kernels, &Kernels::blocks_int8},
#endif
    {"portable blocks", "portable", any, &kPortableKernels, &Kernels::blocks_int8},
};
const Line<FloatGemm> kFloatLines[] = {
#if defined(__x86_64__)
    {"avx512 rows", "amx avx512vnni", few_floats_512, &kAvx512VnniKernels, &Kernels::rows_float},
    {"avx512 blocks", "amx avx512vnni", any, &kAvx512VnniKernels, &Kernels::blocks_float},
    {"avx2 rows", "avxvnni avx2", few_floats_256, &kAvx2Kernels, &Kernels::rows_float},
    {"avx2 blocks", "avxvnni avx2", any, &kAvx2Kernels, &Kernels::blocks_float},
#endif
    {"portable blocks", "portable", any, &kPortableKernels, &Kernels::blocks_float},
};

/// Whether `set` is one of the words of `sets`.
bool has_word(const char* sets, const char* set) {
  const size_t length = std::strlen(set);
  for (const char* at = std::strstr(sets, set); at; at = std::strstr(at + 1, set)) {
    const bool begins = at == sets || at[-1] == ' ';
    if (begins && (at[length] == ' ' || at[length] == '\0')) return true;
  }
  return false;
}

template <typename Gemm, size_t kLines>
const Line<Gemm>& first_line(const Line<Gemm> (&lines)[kLines], const ConvProblem& problem,
                             const Kernels& kernels) {
  for (const Line<Gemm>& line : lines) {
    if (has_word(line.sets, kernels.name) && line.suits(problem)) return line;
  }
  throw std::logic_error("no kernel for an instruction set");
}

ConvConfig config_of(const Line<Int8Gemm>& line) { return {line.name, line.table->*line.gemm, nullptr}; }
ConvConfig config_of(const Line<FloatGemm>& line) { return {line.name, nullptr, line.table->*line.gemm}; }

/// Calls take(line) for each line that computes the problem on this processor.
template <typename Take>
void for_each_able(const ConvProblem& problem, const Take& take) {
  const auto ask = [&](const auto& lines) {
    for (const auto& line : lines) {
      if (line.suits(problem) && runs_here(*line.table)) take(line);
    }
  };
  if (problem.precision == ElementType::kInt8) {
    ask(kInt8Lines);
  } else {
    ask(kFloatLines);
  }
}

}  // namespace

std::string ConvProblem::text() const {
  return std::string(element_name(precision)) + " " + std::to_string(in_channels) + " -> " +
         std::to_string(out_channels) + ", " + std::to_string(offsets) + " offsets" +
         (nonnegative ? ", no negative features" : "") + (half ? ", float16 rows" : "");
}

ConvConfig choose(const ConvProblem& problem, const Kernels& kernels) {
  if (problem.precision == ElementType::kInt8) return config_of(first_line(kInt8Lines, problem, kernels));
  return config_of(first_line(kFloatLines, problem, kernels));
}

ConvConfig choose(const ConvProblem& problem, const std::string& name, const std::string& layer) {
  ConvConfig found;
  for_each_able(problem, [&](const auto& line) {
    if (name == line.name) found = config_of(line);
  });
  if (!found.int8 && !found.floats) fail_kernel(layer, name, problem.text(), kernel_names(problem));
  return found;
}

std::vector<std::string> kernel_names(const ConvProblem& problem) {
  std::vector<std::string> names;
  for_each_able(problem, [&](const auto& line) {
    // some stand there twice, for different instruction sets
    if (std::find(names.begin(), names.end(), line.name) == names.end()) names.push_back(line.name);
  });
  return names;
}

}  // namespace scn
