// kernels.h owns the list of arithmetic on raw rows and codes that is compiled once
// per instruction set, and the choice among them at run time. It knows nothing of
// metrics' names, files or trees. Intrinsics live in this folder only.
//
// Every function gives bit-identical results at every level: integer kernels because
// integers are exact, float kernels because each fixes its order of operations:
//   * lanes: element i goes to partial sum i mod L (L = 16 floats, 8 doubles), the lanes are
//     added as a tree (lane j + lane j+L/2, then L/4, ...);
//   * float32 kernels multiply and then add, never fused (the build passes -ffp-contract=off);
//   * no kernel reads past the end of its operands, whatever the dimension, and none
//     needs alignment.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace annidx {

// Points a block of 4-bit codes holds; see scan_codes_* for its layout.
inline constexpr std::size_t kBlockPoints = 32;
// Entries of one sub-quantizer's table.
inline constexpr std::size_t kCodewords = 16;
// Vectors side by side in a panel ([dim][16] floats) and in a centroid block.
inline constexpr std::size_t kPanelWidth = 16;
// Scores that sort_scores takes at most.
inline constexpr std::size_t kMostSorted = 512;
// The nearest integer, ties to even, of |x| < 2^22: as nearbyint, but loops of it become vector
// code.
inline float round_small(float x) noexcept {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: the sum's last digit is worth 1
  return (x + kShift) - kShift;
}

// Integer queries keep to [-64, 63], so that AVX2's saturating pair sums stay exact
// (255 * 64 * 2 < 32768).
inline constexpr int kPlaneMin = -64;
inline constexpr int kPlaneMax = 63;

struct DotSquare {
  double dot;     // <query, row>
  double square;  // <row, row>
};

// A query as 14-bit integers: q[i] ~ step * (128 * high[i] + low[i]), each plane in [-64, 63].
// The sums let rows be stored as unsigned bytes offset by 128.
struct QueryPlanes {
  const std::int8_t* high;
  const std::int8_t* low;
  std::int32_t high_sum;
  std::int32_t low_sum;
  float step;
};

// A query as 7-bit integers: q[i] ~ step * values[i], in [-64, 63].
struct QueryBytes {
  const std::int8_t* values;
  std::int32_t sum;
  float step;
};

// key = bias - mult * <query, row>
struct RowScalars {
  float mult;
  float bias;
};

// Points of one score whose code blocks follow each other.
struct CodeRun {
  std::uint32_t first_block;
  Slot first_slot;
  std::uint32_t points;
  float score;
};

// A block of 4-bit codes: n_codes * 16 bytes of codes, then kBlockPoints floats.
inline constexpr std::size_t code_block_bytes(std::size_t n_codes) noexcept {
  return n_codes * kCodewords + kBlockPoints * sizeof(float);
}

// Where a scan puts the points that pass: parallel arrays with room for all points scanned.
struct Survivors {
  float* scores;
  Slot* slots;
};

// Rows and columns of a tile: all pairs of two sets of byte rows.
inline constexpr std::size_t kTilePoints = 32;

// What a tile's scores take from each row, and the score that still passes.
struct TileRowTerms {
  float factor;
  float offset;
  float limit;
};

// What they take from each column.
struct TileColumnTerms {
  float mult[kTilePoints];
  float bias[kTilePoints];
  float offset[kTilePoints];
};

// Room for a packed row, and for packed columns, at any level.
inline constexpr std::size_t tile_row_bytes(std::size_t dim) noexcept {
  return 2 * ((dim + 7) / 8 * 8) + 64;
}
inline constexpr std::size_t tile_column_bytes(std::size_t dim) noexcept {
  return 2 * kTilePoints * ((dim + 7) / 8 * 8);
}

struct Kernels {
  const char* name;  // "scalar", "avx2", "avx512", "neon"

  // ---- exact distances: float32 query against one stored row, 8 double lanes ----------
  // The product of two float32 is exact in double, so dot and square may be fused or not.
  // For l2 the float32 values are widened first; difference, square, add are three operations.
  // Integer rows are widened to double; `query` is in the rows' own units.
  double (*l2_squared_f32)(const float* query, const float* row, std::size_t dim);
  double (*l2_squared_f16)(const float* query, const std::uint16_t* row, std::size_t dim);
  double (*l2_squared_i8)(const float* query, const std::int8_t* row, std::size_t dim);
  double (*l2_squared_u8)(const float* query, const std::uint8_t* row, std::size_t dim);
  double (*l1_f32)(const float* query, const float* row, std::size_t dim);
  double (*l1_f16)(const float* query, const std::uint16_t* row, std::size_t dim);
  double (*l1_i8)(const float* query, const std::int8_t* row, std::size_t dim);
  double (*l1_u8)(const float* query, const std::uint8_t* row, std::size_t dim);
  DotSquare (*dot_square_f32)(const float* query, const float* row, std::size_t dim);
  DotSquare (*dot_square_f16)(const float* query, const std::uint16_t* row, std::size_t dim);
  DotSquare (*dot_square_i8)(const float* query, const std::int8_t* row, std::size_t dim);
  DotSquare (*dot_square_u8)(const float* query, const std::uint8_t* row, std::size_t dim);
  std::uint32_t (*hamming)(const std::uint8_t* a, const std::uint8_t* b, std::size_t bytes);

  // ---- float32 arithmetic for building: 16 lanes ------------------------------------
  float (*dot_f32)(const float* a, const float* b, std::size_t dim);
  float (*l2_squared_build_f32)(const float* a, const float* b, std::size_t dim);
  // out[r * out_stride + c] = sum over j of rows[r * row_stride + j] * panel[j * 16 + c],
  // j ascending, one running sum per output starting at 0. The work horse of clustering,
  // rotation and encoding: tile over r (4 to 8 rows) so that the panel is read once per tile.
  void (*panel_dot)(const float* rows, std::size_t n_rows, std::size_t row_stride,
                    const float* panel, std::size_t dim, float* out, std::size_t out_stride);
  // The first c of n (> 0) with the least half_squares[c] - dots[c]; all finite.
  std::size_t (*nearest_centroid)(const float* half_squares, const float* dots, std::size_t n);
  // sums[i] += x[i] * unit, truncated to an integer; |x[i] * unit| < 2^31.
  void (*add_as_integers)(const float* x, std::size_t n, float unit, std::int64_t* sums);
  // y[i] += a * x[i]; multiply, then add.
  void (*axpy)(float a, const float* x, float* y, std::size_t n);

  // ---- conversions -----------------------------------------------------------------
  void (*f16_to_f32)(const std::uint16_t* in, float* out, std::size_t n);  // exact, NaN/inf kept
  void (*f32_to_f16)(const float* in, std::uint16_t* out, std::size_t n);  // nearest, ties to even
  void (*i8_to_f32)(const std::int8_t* in, float* out, std::size_t n);
  void (*u8_to_f32)(const std::uint8_t* in, float* out, std::size_t n);
  // out[i] = bit i (most significant bit of byte 0 first) as 0.0f or 1.0f; n counts bits.
  void (*bits_to_f32)(const std::uint8_t* in, float* out, std::size_t n);
  // Index of the first NaN or infinity, or n.
  std::size_t (*first_nonfinite)(const float* in, std::size_t n);
  float (*max_abs)(const float* in, std::size_t n);  // 0 when n is 0; input is finite

  // ---- routing ---------------------------------------------------------------------
  // Centroids as unsigned bytes (value + 128) in blocks of 16 centroids: for each group of four
  // dimensions 16 x 4 bytes. dim4 is the dimension rounded up to a multiple of 4 (padding:
  // byte 128, query 0). query is in [-64, 63], query_sum is its sum.
  //   dot[c] = sum (byte - 128) * query            (exact in int32)
  //   out[c] = bias[c] - mult[c] * (query_step * float(dot[c]))
  // All arrays of centroids (centroids, mult, bias, out) hold n_blocks * 16 entries.
  void (*route_scores)(const std::uint8_t* centroids, std::size_t n_blocks, std::size_t dim4,
                       const std::int8_t* query, std::int32_t query_sum, float query_step,
                       const float* mult, const float* bias, float* out);
  // Appends (scores[i], base + i) for each i < n with scores[i] <= threshold, in order; returns
  // how many. A NaN score never passes. `out` has room for n entries plus 16.
  std::size_t (*select_at_most)(const float* scores, std::size_t n, float threshold, Slot base,
                                Survivors out);

  // A bound that at least `keep` (1 to n) of the scores do not exceed, and few more than that where
  // scores differ: bisection between the least and the largest finite score, at most 16 steps. +inf
  // when fewer than keep are finite. Depends on the scores only, not on their order; NaN is never
  // counted.
  float (*near_bound)(const float* scores, std::size_t n, std::size_t keep);
  // The positions of n (at most kMostSorted) scores, ascending by score, NaN last, equal ones by
  // position. Counts for each score those below it: for so few, faster than a sort that branches.
  void (*sort_scores)(const float* scores, std::size_t n, std::uint32_t* sorted);
  // Drops the pairs whose score exceeds the threshold (or is NaN), keeping order; returns how many
  // stay.
  std::size_t (*compact_at_most)(float* scores, Slot* slots, std::size_t n, float threshold);

  // ---- scanning 4-bit codes --------------------------------------------------------
  // A block holds 32 points in code_block_bytes(n_codes): for each sub-quantizer 16 bytes, byte j
  // with the code of point j in its low nibble and of point 16 + j in its high nibble; then the
  // points' scalars, 32 floats. n_codes is a multiple of 4 and at most 256. luts: 16 bytes a
  // sub-quantizer. A run is points of one score whose blocks follow each other.
  //   sum = sum over sub-quantizers of lut[code]   (exact)
  //   additive:       score = (run.score + step * float(sum)) + scalar
  //   multiplicative: score = (run.score + step * float(sum)) * scalar
  // Points with score <= threshold (NaN never) are appended as (score, run.first_slot + i), run by
  // run, in order. A run's `points` (> 0) need not be a multiple of 32: the lanes of its last block
  // beyond them never pass, whatever they hold (of their scalars all bytes are read).
  // eligible: one bit a slot (bit s % 64 of word s / 64), or nullptr for all; a point whose bit is
  // 0 never passes. Returns how many passed. `out` has room for all points, each run's rounded up
  // to 32, plus 16. The first blocks of runs some places ahead are prefetched.
  std::size_t (*scan_codes_additive)(const std::uint8_t* blocks, std::size_t n_codes,
                                     const CodeRun* runs, std::size_t n_runs,
                                     const std::uint8_t* luts, float step, float threshold,
                                     const std::uint64_t* eligible, Survivors out);
  std::size_t (*scan_codes_multiplicative)(const std::uint8_t* blocks, std::size_t n_codes,
                                           const CodeRun* runs, std::size_t n_runs,
                                           const std::uint8_t* luts, float step, float threshold,
                                           const std::uint64_t* eligible, Survivors out);
  // Puts the code records of n points (1 to 32), wherever they lie, side by side as one block of
  // the scans above; lanes from n on repeat the last. records: n_codes / 2 bytes of codes every
  // `stride` bytes, byte j with code 2j in its low nibble and code 2j + 1 in its high one. `stride`
  // is at least that rounded up to 16: records are read in pieces of 16 bytes. block: n_codes * 16
  // bytes; the scalars behind them are the caller's.
  void (*gather_codes)(const std::uint8_t* records, std::size_t stride, const Slot* slots,
                       std::size_t n, std::size_t n_codes, std::uint8_t* block);
  // Lookup tables of one query. codebook: [dim][16] floats (for rotated dimension j the 16
  // codewords' components); sub-quantizer m covers dimensions [first_dim[m], first_dim[m+1]).
  //   table[m][c] = sum over j ascending of query[j] * codebook[j][c]   (16 lanes, mul then add)
  // written as floats to tables[n_codes * 16].
  void (*lut_floats)(const float* query, const float* codebook, const std::uint16_t* first_dim,
                     std::size_t n_codes, float* tables);
  // Quantizes: low[m] = min of table m; step = max over m of (max - min) / 255 (1 when that is 0);
  // luts[m][c] = min(255, int((table[m][c] - low[m]) / step + 0.5f)) (as multiplication
  // by 1.0f/step, truncation); *base = sum of low[m], m ascending, float. Returns step.
  float (*lut_quantize)(const float* tables, std::size_t n_codes, std::uint8_t* luts, float* base);
  // Encodes rows of rotated residuals: code m of row r = the c with the smallest
  //   half_squares[m * 16 + c] - sum over j of row[j] * codebook[j][c]
  // (sum from 0, j ascending, mul then add; then one subtraction; lowest c among equals).
  // Codes are written unpacked: out[r * n_codes + m].
  void (*encode)(const float* rows, std::size_t n_rows, std::size_t row_stride,
                 const float* codebook, const float* half_squares, const std::uint16_t* first_dim,
                 std::size_t n_codes, std::uint8_t* out);

  // ---- byte rows: re-ranking and L1 -------------------------------------------------
  // For each of n slots: row = rows + slot * row_stride (dim bytes);
  //   dot = sum row * (128 * high + low), with row read as signed or unsigned bytes (exact);
  //   keys[i] = scalars[slot].bias - scalars[slot].mult * (step * float(dot)), where float(dot) is
  //   the double 128.0 * high_dot + low_dot, rounded to float.
  // (Signed rows are read as byte ^ 0x80 minus 128: the sums in QueryPlanes correct for it.)
  // Prefetches rows and scalars some slots ahead. Any int32 partial fits for dim <= 65536.
  void (*rerank_i8)(const std::int8_t* rows, std::size_t row_stride, std::size_t dim,
                    const QueryPlanes& query, const RowScalars* scalars, const Slot* slots,
                    std::size_t n, float* keys);
  void (*rerank_u8)(const std::uint8_t* rows, std::size_t row_stride, std::size_t dim,
                    const QueryPlanes& query, const RowScalars* scalars, const Slot* slots,
                    std::size_t n, float* keys);
  // Contiguous scans of whole rows: score = float(distance), those <= threshold and eligible are
  // appended as in scan_codes_*. l1: sum |row ^ flip - query ^ flip| over unsigned bytes where
  // flip is 0x80 for signed rows (the caller gives `query` already flipped) and 0 otherwise.
  std::size_t (*scan_l1_u8)(const std::uint8_t* rows, std::size_t points, std::size_t dim,
                            std::uint8_t flip, const std::uint8_t* query, float step,
                            float threshold, Slot first_slot, const std::uint64_t* eligible,
                            Survivors out);  // score = step * float(sum)
  std::size_t (*scan_hamming)(const std::uint8_t* rows, std::size_t points, std::size_t bytes,
                              const std::uint8_t* query, float threshold, Slot first_slot,
                              const std::uint64_t* eligible, Survivors out);

  // A query times a matrix of signed bytes (the rotation of a query): rows are row_stride bytes
  // apart:
  //   out[r] = row_scale[r] * (step * float(dot))
  void (*rotate_i8)(const std::int8_t* matrix, std::size_t n_rows, std::size_t row_stride,
                    std::size_t dim, const QueryBytes& query, const float* row_scale, float* out);

  // ---- tiles: scores of all pairs of two sets of byte rows ----------------------------
  // Both sides are packed first, in a layout of the level's own. Values are byte ^ flip, signed:
  // flip is 0 for signed rows and 0x80 for unsigned ones, which become value - 128. A row fills
  // tile_row_bytes(dim); columns, n (1 to 32) of dim bytes wherever they lie, fill
  // tile_column_bytes(dim), places from n on repeat the last.
  void (*pack_tile_row)(const std::uint8_t* row, std::size_t dim, std::uint8_t flip,
                        std::uint8_t* packed);
  void (*pack_tile_columns)(const std::uint8_t* const* rows, std::size_t n, std::size_t dim,
                            std::uint8_t flip, std::uint8_t* packed);
  // Row r is the one at rows + places[r] * tile_row_bytes(dim), its terms are terms[places[r]].
  //   dot = sum of row value * column value         (exact in int32)
  //   scores[r * 32 + c] = bias[c] - mult[c] * (factor * ((float(dot) + offset) + offset[c]))
  // Bit c of passed[r] says whether that is <= the row's limit (NaN never). `scores` and `passed`
  // have room for n_rows rounded up to 8.
  void (*score_tile)(const std::uint8_t* rows, const std::uint32_t* places, std::size_t n_rows,
                     const std::uint8_t* columns, std::size_t dim, const TileRowTerms* terms,
                     const TileColumnTerms& column, std::uint32_t* passed, float* scores);

  // ---- bytes -----------------------------------------------------------------------
  std::uint32_t (*crc32c)(std::uint32_t crc, const void* data, std::size_t bytes);  // start with 0
};

// The level in use: the best the CPU has, or the one named by the environment variable
// ANNIDX_ISA (scalar, avx2, avx512, neon) read once; asking for one the CPU lacks or an unknown
// name falls back to the best and active_isa() tells which. Thread-safe.
const Kernels& kernels() noexcept;
// All levels this machine can run, scalar first; for tests. Returns the count, at most 4.
std::size_t available_kernels(const Kernels** out) noexcept;
// Makes kernels() return the named level from now on; false when it is not available.
// For tests and benchmarks only: not synchronised with calls under way.
bool force_kernels(const char* name) noexcept;

// Asks for a range (not empty) to be brought into the first-level cache; harmless on any address.
inline void prefetch_l1(const void* data, std::size_t bytes) noexcept {
#if defined(__GNUC__) || defined(__clang__)
  constexpr std::size_t kLine = 64;
  const auto* at = static_cast<const char*>(data);
  for (std::size_t i = 0; i < bytes; i += kLine) __builtin_prefetch(at + i);
  __builtin_prefetch(at + bytes - 1);  // an unaligned range may touch one line more
#else
  static_cast<void>(data);
  static_cast<void>(bytes);
#endif
}
// Asks for a range to be brought into the second-level cache; harmless on any address.
void prefetch_l2(const void* data, std::size_t bytes) noexcept;

}  // namespace annidx
