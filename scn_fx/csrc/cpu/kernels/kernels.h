// SPDX-License-Identifier: Apache-2.0
// The arithmetic of the CPU backend: one table of functions per instruction set, chosen at run time.
//
// Only plain structs and raw pointers in the tables: the files that implement a table are compiled with
// instructions that the machine may lack, so no inline function that other files share may end up in them.
#pragma once

#include <cstdint>
#include <string>

#include "core/activation.h"
#include "core/element_type.h"
#include "core/numerics.h"
#include "cpu/maps/map_view.h"

namespace scn {

/// Channels are padded to these multiples in memory, with zeros.
constexpr int32_t kInputQuad = 4;         // int8 products are summed four input channels at a time
constexpr int32_t kOutputBlock = 16;      // output channels computed together
constexpr int32_t kInt8RowMultiple = 16;  // bytes per int8 row
constexpr int32_t kHalfRowMultiple = 8;  // float16 values per row, with kHalfPadding more behind the last row
constexpr int32_t kHalfPadding = 16;     // that may be read
constexpr int32_t kAccRows = 16;         // rows of sums computed together, at most
constexpr int32_t kRun = 3;              // offsets whose products may be added together
constexpr int32_t kMostGroup = 8;        // quads whose products may be summed in 16 bits
constexpr int32_t kShiftedGroup = 4;     // the same for sums that start at a shift instead of zero
constexpr uint8_t kShifted = 0x80;       // marks such a group

/// A gathering matrix product over a range of output rows:
///   acc[r][n] = sum over offsets k that have a neighbour i of r, and channels c, of x[i][c] * w[k][c][n].
struct GatherGemm {
  MapView map;
  const void* x;               // rows of int8, float or float16
  int64_t x_stride;            // elements per row
  int32_t in_channels;         // padded
  const void* weight;          // packed by pack_weight_*
  int32_t out_channels;        // padded to kOutputBlock: also the row length of acc
  bool x_nonnegative;          // int8 only: all x in [0, 127]
  const int32_t* offset_sums;  // int8 only: [offsets, out_channels], 128 * sum over c of weight[k][c][n]
  const uint8_t* groups;       // int8 only: [out blocks, offsets], see plan_int8_groups
  const int16_t* shifts;       // int8 only: [out blocks, offsets, in quads / 4, 32], or null if all are zero
  bool x_half;                 // float only: x is float16
};

/// One stored form of a result. Rows are written sixteen columns at a time.
struct StoreView {
  ElementType type;
  bool rounds_first;   // to float16, before the affine map
  const float* scale;  // of an affine map, [columns] padded to 16; null: none
  const float* shift;
  Activation activation;
  bool rounds;      // to float16, behind it (rows of float16 do so by themselves)
  float factor;     // int8: 127 / amax
  void* out;        // row 0
  int64_t stride;   // elements per row
  int32_t columns;  // of a row that are written: a multiple of 16 for int8, of 8 for float16
};

/// An Add, or product, of two values: the one at hand ("self", a convolution's result or the first operand)
/// and another.
struct ResidualView {
  const void* other;  // rows of `type`; null: no Add
  ElementType type;
  int64_t stride;
  bool rounds;          // self is rounded to float16 first
  bool self_is_second;  // self is the Add's second input
  AddScales scales;     // int8
  bool product;         // of stored rows
  float scale;          // int8 products
};

/// How many values became infinite (or were NaN) when they were rounded to float16.
struct Overflow {
  int64_t before_add;  // in the value before a fused Add
  int64_t stored;      // in the result; counted once however often it is stored
};

/// From sums to stored results, over rows [begin, end). Exactly one of the four sources is set; rows of sums
/// count from `begin`, rows of self_* from 0.
struct Finish {
  const int32_t* int_sums;
  const float* float_sums;
  const int8_t* self_int8;    // self is stored already quantised: an int8 Add that is not fused
  const uint16_t* self_half;  // the same for a float16 Add
  int64_t stride;             // of the source, elements per row
  int32_t channels;
  const float* scale;  // [channels] padded to 16; null: none, with int_sums never
  const float* bias;   // [channels] padded to 16, or null; with a scale never
  Activation activation;
  bool rounds;  // to float16, before the Add
  ResidualView residual;
  const StoreView* stores;
  int32_t store_count;
};

/// acc [end - begin, out_channels] for output rows [begin, end), with room for that many rows rounded up to
/// kAccRows. `scratch` holds gemm_scratch_bytes(...) bytes.
using Int8Gemm = void (*)(const GatherGemm&, int64_t begin, int64_t end, int32_t* acc, void* scratch);
/// The same in float32: a chain of fused multiply-adds, offsets ascending, then channels. `fused` may be
/// ignored where the hardware has no such instruction and the layer's order is not specified.
using FloatGemm = void (*)(const GatherGemm&, int64_t begin, int64_t end, float* acc, void* scratch,
                           bool fused);

/// What an instruction set has. Which of the products serves a layer is decided in
/// cpu/convolution/config.cpp.
struct Kernels {
  const char* name;

  Int8Gemm blocks_int8;  // of any shape, but for AMX: see tiles_suit()
  Int8Gemm rows_int8;    // of few channels, row by row; null: none
  FloatGemm blocks_float;
  FloatGemm rows_float;

  /// sums [outs, width] += Σ over pairs of rows [pairs, outs] ⊗ columns [pairs, width]; outs is a multiple of
  /// 4, width of 16.
  void (*add_outer)(const float* rows, int32_t outs, const float* columns, int32_t width, int64_t pairs,
                    float* sums);

  /// Finishes rows [begin, end).
  Overflow (*finish)(const Finish&, int64_t begin, int64_t end);

  void (*half_to_float)(const uint16_t* in, float* out, int64_t count);
  /// Returns how many finite or infinite inputs became infinite (NaN counts too).
  int64_t (*float_to_half)(const float* in, uint16_t* out, int64_t count);

  /// Multiply-adds without memory traffic: `rounds` of a loop. Return how many operations that was (two per
  /// product).
  int64_t (*float_loop)(int64_t rounds);
  int64_t (*int8_loop)(int64_t rounds);
};

/// Input channels of all offsets together, up to which AMX kernels gather whole rows.
constexpr int64_t kMostPanelDepth = 16384;

/// Whether AMX tiles serve a layer of so many (padded) input channels: gathering costs the same for each
/// offset however few channels it has, so below 32 the vector instructions win (16 channels on Sapphire
/// Rapids: 3.1 ms against 6.6).
static inline bool tiles_suit(int32_t in_channels, int32_t offsets) {
  return in_channels >= 32 && in_channels % 16 == 0 && int64_t(offsets) * in_channels <= kMostPanelDepth;
}

/// Entries between the lists of a tile: not a power of two, or the lists would share few lines of the
/// first-level cache.
static inline int64_t list_room(int64_t tile_rows) { return tile_rows + 8; }

/// Room for the pairs of a tile by offset, or for its rows by run and which offsets of the run they have.
static inline int64_t tile_list_bytes(int64_t tile_rows, int32_t offsets) {
  const int64_t lists = (offsets + kRun - 1) / kRun * (int64_t(1) << kRun);
  return (lists * (list_room(tile_rows) * 2 + 1) * int64_t(sizeof(int32_t)) + 63) / 64 * 64;
}

/// Scratch for the gemm functions: the pairs of a tile by offset and a few rows as float32, or a panel of
/// gathered rows.
int64_t gemm_scratch_bytes(int64_t tile_rows, int32_t offsets, int32_t in_channels);

/// int8 weights [out, offsets, in] → [out block, offsets, in quad, 16 outputs, 4 inputs]; zero padded, and
/// with kAccRows quads of zeros behind, which kernels may read.
int64_t packed_int8_bytes(int32_t out, int32_t offsets, int32_t in);
void pack_weight_int8(const int8_t* weight, int32_t out, int32_t offsets, int32_t in, int8_t* packed);

/// For each block of outputs and offset of packed int8 weights, how many quads (1, 2, 4 or 8, a divisor of
/// their number) may have their products with x in [0, 127] summed in 16 bits, two channels a sum. Marked
/// with kShifted: kShiftedGroup quads, if the sums start at `shifts`, int8_shift_count(...) entries. The
/// shifts of an output at one offset add up to zero.
void plan_int8_groups(const int8_t* packed, int32_t out, int32_t offsets, int32_t in, uint8_t* groups,
                      int16_t* shifts);
int64_t int8_shift_count(int32_t out, int32_t offsets, int32_t in);

/// float weights [out, offsets, in] → [out block, offsets, in, 16 outputs]; zero padded.
int64_t packed_float_count(int32_t out, int32_t offsets, int32_t in);
void pack_weight_float(const float* weight, int32_t out, int32_t offsets, int32_t in, float* packed);

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512VnniKernels;
extern const Kernels kAmxKernels;
#endif

/// The table for this processor, or the one that the environment variable SCN_FX_ISA names (portable, avx2,
/// avxvnni, avx512vnni, amx).
const Kernels& select_kernels();
/// Whether this processor has the instructions of a table.
bool runs_here(const Kernels& table);
/// Names that select_kernels accepts here, best first, as one space-separated string.
std::string supported_isas();

}  // namespace scn
