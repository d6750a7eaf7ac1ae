// avx512.cpp owns the level for x86 CPUs with AVX-512 F, BW, VL and DQ, and its variants for
// those that also have VNNI, or VNNI, VBMI and VPOPCNTDQ. Nothing in it may be called before
// levels.cpp has found the CPU fit. Headers come before the target regions, so that none of
// their inline functions is compiled for AVX-512.
#include <cstring>

#include "kernels/levels.h"

#if ANNIDX_X86

#include <immintrin.h>

// What names an intrinsic for this level's registers, in sources that levels share.
#define ANNIDX_MM(operation) _mm512_##operation

#if !defined(__clang__)
// GCC before 13 takes its own _mm512_undefined_*() for uses of uninitialized variables (PR 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(__clang__)
#pragma clang attribute push(                                                                    \
    __attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512dq"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512dq")
#endif

namespace annidx {
namespace {

// ---- sixteen floats ---------------------------------------------------------------------------

using Floats = __m512;

#include "kernels/floats_x86.inc"

using F32x16 = __m512;
using F64x8 = __m512d;

constexpr std::size_t kMaxCodes = 256;
constexpr std::size_t kPanelRows = 8;
constexpr std::size_t kEncodeRows = 4;

inline __mmask16 first_lanes(std::size_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline F32x16 zero16() { return _mm512_setzero_ps(); }
inline F32x16 splat16(float x) { return _mm512_set1_ps(x); }
inline F32x16 load16(const float* p) { return _mm512_loadu_ps(p); }
inline F32x16 load16_part(const float* p, std::size_t n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
inline void store16(float* p, F32x16 a) { _mm512_storeu_ps(p, a); }
inline void store16_part(float* p, F32x16 a, std::size_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a);
}
inline F32x16 add(F32x16 a, F32x16 b) { return _mm512_add_ps(a, b); }
inline F32x16 sub(F32x16 a, F32x16 b) { return _mm512_sub_ps(a, b); }
inline F32x16 mul(F32x16 a, F32x16 b) { return _mm512_mul_ps(a, b); }

inline float tree_sum(F32x16 a) {
  return sum_of_lanes(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}

// The least and the greatest of each four tables' 16 entries.
inline void bounds4(const float* const (&tables)[4], float* low, float* high) {
  Floats least[4];
  Floats most[4];
#pragma GCC unroll 4
  for (int t = 0; t < 4; ++t) {
    least[t] = min_of_numbers(load16(tables[t]));
    most[t] = max_of_numbers(load16(tables[t]));
  }
  const Bounds bounds = fold_bounds(least, most);
  const __m512 a = bounds.low;
  const __m512 b = bounds.high;
  store_bounds(_mm256_min_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)),
               _mm256_max_ps(_mm512_castps512_ps256(b), _mm512_extractf32x8_ps(b, 1)), low, high);
}
inline unsigned argmin16(F32x16 a) {
  a = min_of_numbers(a);
  __m512 least = _mm512_min_ps(a, _mm512_shuffle_f32x4(a, a, 0x4E));
  least = _mm512_min_ps(least, _mm512_shuffle_f32x4(least, least, 0xB1));
  least = _mm512_min_ps(least, _mm512_permute_ps(least, 0x4E));
  least = _mm512_min_ps(least, _mm512_permute_ps(least, 0xB1));
  return static_cast<unsigned>(__builtin_ctz(_mm512_cmp_ps_mask(a, least, _CMP_EQ_OQ)));
}
// min(255, int(x)) for x >= 0; not a number gives 255.
inline void store16_codes(std::uint8_t* p, F32x16 a) {
  const __m512i codes = _mm512_cvttps_epi32(_mm512_min_ps(a, _mm512_set1_ps(255.0f)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(codes));
}

inline F32x16 load16_half(const std::uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void store16_half(std::uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// ---- eight doubles ----------------------------------------------------------------------------

inline __mmask8 first_lanes8(std::size_t n) { return static_cast<__mmask8>((1u << n) - 1u); }

inline F64x8 zero8() { return _mm512_setzero_pd(); }
inline F64x8 load8(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
inline F64x8 load8_part(const float* p, std::size_t n) {
  return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(first_lanes8(n), p));
}
inline F64x8 load8(const std::uint16_t* p) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtps_pd(_mm256_cvtph_ps(halves));
}
inline F64x8 load8_part(const std::uint16_t* p, std::size_t n) {
  return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_maskz_loadu_epi16(first_lanes8(n), p)));
}
inline F64x8 load8(const std::int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(bytes));
}
inline F64x8 load8_part(const std::int8_t* p, std::size_t n) {
  const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>(first_lanes8(n)), p);
  return _mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(bytes));
}
inline F64x8 load8(const std::uint8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(bytes));
}
inline F64x8 load8_part(const std::uint8_t* p, std::size_t n) {
  const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>(first_lanes8(n)), p);
  return _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(bytes));
}
inline F64x8 add(F64x8 a, F64x8 b) { return _mm512_add_pd(a, b); }
inline F64x8 sub(F64x8 a, F64x8 b) { return _mm512_sub_pd(a, b); }
inline F64x8 mul(F64x8 a, F64x8 b) { return _mm512_mul_pd(a, b); }
inline F64x8 mul_add(F64x8 a, F64x8 b, F64x8 c) { return _mm512_fmadd_pd(a, b, c); }
inline F64x8 abs8(F64x8 a) { return _mm512_abs_pd(a); }
inline double tree_sum(F64x8 a) {
  return sum_of_lanes(_mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1)));
}

#include "kernels/loops.inc"

// ---- survivors --------------------------------------------------------------------------------

inline std::uint32_t pass_mask(F32x16 scores, F32x16 limit) {
  return _mm512_cmp_ps_mask(scores, limit, _CMP_LE_OQ);
}

// Compresses in registers and stores whole vectors: compressing stores are slow on Zen 4.
inline std::size_t append16(F32x16 scores, std::uint32_t mask, Slot slot, Survivors out,
                            std::size_t count) {
  const auto passed = static_cast<__mmask16>(mask);
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i slots = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(slot)), lanes);
  _mm512_storeu_ps(out.scores + count, _mm512_maskz_compress_ps(passed, scores));
  _mm512_storeu_si512(out.slots + count, _mm512_maskz_compress_epi32(passed, slots));
  return count + static_cast<std::size_t>(_mm_popcnt_u32(mask));
}

std::size_t select_at_most(const float* scores, std::size_t n, float threshold, Slot base,
                           Survivors out) {
  const F32x16 limit = splat16(threshold);
  std::size_t count = 0;
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const F32x16 s = load16(scores + i);
    count = append16(s, pass_mask(s, limit), base + static_cast<Slot>(i), out, count);
  }
  if (i < n) {
    const F32x16 s = load16_part(scores + i, n - i);
    const std::uint32_t mask = pass_mask(s, limit) & first_lanes(n - i);
    count = append16(s, mask, base + static_cast<Slot>(i), out, count);
  }
  return count;
}

std::size_t compact_at_most(float* scores, Slot* slots, std::size_t n, float threshold) {
  const F32x16 limit = splat16(threshold);
  std::size_t kept = 0;
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const F32x16 s = load16(scores + i);
    const __m512i places = _mm512_loadu_si512(slots + i);
    const auto mask = static_cast<__mmask16>(pass_mask(s, limit));
    // Whole vectors end at i + 16 at most: what they overwrite has been read.
    _mm512_storeu_ps(scores + kept, _mm512_maskz_compress_ps(mask, s));
    _mm512_storeu_si512(slots + kept, _mm512_maskz_compress_epi32(mask, places));
    kept += static_cast<std::size_t>(_mm_popcnt_u32(mask));
  }
  return compact_rest(scores, slots, i, n, threshold, kept);
}

// ---- bytes, words and sums in a register ------------------------------------------------------

using Bytes = __m512i;
using Sums = __m512i;
constexpr std::size_t kByteWidth = 64;
constexpr int kSumsUnrolled = 2;

inline Bytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
inline Bytes load_bytes_part(const void* p, std::size_t n) {
  return _mm512_maskz_loadu_epi8((std::uint64_t{1} << n) - 1, p);
}
inline Bytes repeat16(__m128i x) { return _mm512_broadcast_i32x4(x); }
inline F32x16 word_totals(Bytes even, Bytes odd) {
  const __m512i both_low = _mm512_unpacklo_epi16(even, odd);
  const __m512i both_high = _mm512_unpackhi_epi16(even, odd);
  const __m512i a = _mm512_add_epi16(_mm512_shuffle_i64x2(both_low, both_high, 0x44),
                                     _mm512_shuffle_i64x2(both_low, both_high, 0xEE));
  const __m512i b = _mm512_add_epi16(a, _mm512_shuffle_i64x2(a, a, 0xB1));
  const __m256i words =
      _mm256_set_m128i(_mm512_extracti32x4_epi32(b, 2), _mm512_castsi512_si128(b));
  return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(words));
}
inline __m128i totals4(const Sums (&sums)[4]) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]),
                                     _mm512_unpackhi_epi32(sums[0], sums[1]));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]),
                                     _mm512_unpackhi_epi32(sums[2], sums[3]));
  const __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  const __m256i d = _mm256_add_epi32(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
}

#include "kernels/bytes_x86.inc"

// ---- rows' distances --------------------------------------------------------------------------

inline F32x16 to_floats(const std::uint32_t* p) {
  return _mm512_cvtepi32_ps(_mm512_loadu_si512(p));
}

// out[r] = the total of the eight 64-bit lanes of lanes[r], each total below 2^32, for 16 rows.
inline void total16(const __m512i (&lanes)[16], std::uint32_t* out) {
  __m512i pairs[8];  // rows r (low half of each lane) and r + 8 (high half)
  for (int r = 0; r < 8; ++r) {
    pairs[r] = _mm512_add_epi64(lanes[r], _mm512_slli_epi64(lanes[r + 8], 32));
  }
  __m512i fours[4];  // 128-bit part k: a quarter of the sums of rows 2i and 2i + 1
  for (int i = 0; i < 4; ++i) {
    fours[i] = _mm512_add_epi64(_mm512_unpacklo_epi64(pairs[2 * i], pairs[2 * i + 1]),
                                _mm512_unpackhi_epi64(pairs[2 * i], pairs[2 * i + 1]));
  }
  __m512i twos[2];  // parts: half of 4i.., half of 4i.., half of 4i + 2.., half of 4i + 2..
  for (int i = 0; i < 2; ++i) {
    twos[i] = _mm512_add_epi64(_mm512_shuffle_i64x2(fours[2 * i], fours[2 * i + 1], 0x44),
                               _mm512_shuffle_i64x2(fours[2 * i], fours[2 * i + 1], 0xEE));
  }
  const __m512i all = _mm512_add_epi64(_mm512_shuffle_i64x2(twos[0], twos[1], 0x88),
                                       _mm512_shuffle_i64x2(twos[0], twos[1], 0xDD));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi64_epi32(all));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8),
                      _mm512_cvtepi64_epi32(_mm512_srli_epi64(all, 32)));
}

// metric.part_lanes gives the partial distances of n bytes that are followed by zeros.
template <std::size_t kRows, class Metric>
inline void row_lanes(const Metric& metric, const std::uint8_t* rows, std::size_t bytes,
                      __m512i* out) {
  Bytes sums[kRows];
  const std::size_t i = add_lanes<kRows>(metric, rows, bytes, sums);
  if (i < bytes) {
    const std::size_t n = bytes - i;
    const __m512i q = load_bytes_part(metric.query + i, n);
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) {
      const __m512i row = load_bytes_part(rows + r * bytes + i, n);
      sums[r] = _mm512_add_epi64(sums[r], metric.part_lanes(row, q, n));
    }
  }
#pragma GCC unroll 8
  for (std::size_t r = 0; r < kRows; ++r) out[r] = sums[r];
}

template <class Metric>
inline void row_distances16(const Metric& metric, const std::uint8_t* rows, std::size_t bytes,
                            std::uint32_t* out) {
  __m512i lanes[16];
  row_lanes<8>(metric, rows, bytes, lanes);
  row_lanes<8>(metric, rows + 8 * bytes, bytes, lanes + 8);
  total16(lanes, out);
}

struct ManhattanRows {
  const std::uint8_t* query;
  std::uint8_t flip;

  Bytes lanes(Bytes row, Bytes q) const {
    return byte_differences(row ^ splat_byte(static_cast<char>(flip)), q);
  }
  __m512i part_lanes(__m512i row, __m512i q, std::size_t n) const {
    const auto mask = static_cast<__mmask64>((std::uint64_t{1} << n) - 1);
    const __m512i flips = _mm512_maskz_set1_epi8(mask, static_cast<char>(flip));
    return _mm512_sad_epu8(_mm512_xor_si512(row, flips), q);
  }
  void distances16(const std::uint8_t* rows, std::size_t bytes, std::uint32_t* out) const {
    row_distances16(*this, rows, bytes, out);
  }
  std::uint32_t distance(const std::uint8_t* row, std::size_t bytes) const {
    __m512i sum;
    row_lanes<1>(*this, row, bytes, &sum);
    return static_cast<std::uint32_t>(_mm512_reduce_add_epi64(sum));
  }
};

// Totals of 16 rows of 32 bytes, given the bit counts of each 64-bit lane of row pairs
// (0, 1), (2, 3) ...
inline void total_pairs16(const __m512i (&counts)[8], std::uint32_t* out) {
  __m512i words[2];  // 16 bits a row: rows 8i, 8i + 2, 8i + 4, 8i + 6 left, the odd ones right
  for (int i = 0; i < 2; ++i) {
    const __m512i a = _mm512_add_epi64(counts[4 * i], _mm512_slli_epi64(counts[4 * i + 1], 16));
    const __m512i b = _mm512_add_epi64(counts[4 * i + 2], _mm512_slli_epi64(counts[4 * i + 3], 16));
    words[i] = _mm512_add_epi64(a, _mm512_slli_epi64(b, 32));
  }
  const __m512i halves = _mm512_add_epi64(_mm512_unpacklo_epi64(words[0], words[1]),
                                          _mm512_unpackhi_epi64(words[0], words[1]));
  const __m512i sums = _mm512_add_epi64(halves, _mm512_shuffle_i64x2(halves, halves, 0xB1));
  const __m128i even = _mm512_castsi512_si128(sums);
  const __m128i odd = _mm512_extracti32x4_epi32(sums, 2);
  const __m128i low = _mm_unpacklo_epi16(even, odd);
  const __m128i high = _mm_unpackhi_epi16(even, odd);
  _mm512_storeu_si512(out, _mm512_cvtepu16_epi32(_mm256_set_m128i(high, low)));
}

// `Count` counts the bits of each 64-bit lane.
template <class Count>
struct HammingRowsBy {
  const std::uint8_t* query;

  __m512i lanes(__m512i row, __m512i q) const { return Count::count(_mm512_xor_si512(row, q)); }
  __m512i part_lanes(__m512i row, __m512i q, std::size_t) const { return lanes(row, q); }
  void distances16(const std::uint8_t* rows, std::size_t bytes, std::uint32_t* out) const {
    if (bytes != 32) return row_distances16(*this, rows, bytes, out);
    const __m512i q =
        _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(query)));
    __m512i counts[8];
    for (int i = 0; i < 8; ++i) counts[i] = lanes(load_bytes(rows + 64 * i), q);
    total_pairs16(counts, out);
  }
  std::uint32_t distance(const std::uint8_t* row, std::size_t bytes) const {
    return hamming(row, query, bytes);
  }
};

// ---- dot products -----------------------------------------------------------------------------

constexpr std::size_t kRouteBlocks = 4;
constexpr bool kRowsSigned = false;

inline Sums one_sum(std::int32_t x) { return _mm512_maskz_set1_epi32(1, x); }
inline F32x16 sums_to_floats(const Sums (&sums)[1]) { return _mm512_cvtepi32_ps(sums[0]); }
// ---- without extensions -----------------------------------------------------------------------

#include "kernels/records_x86.inc"

// Sixteen registers of sixteen 32-bit lanes, turned so that register i holds lane i of all.
inline void transpose_lanes(__m512i (&x)[16]) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  // x[4 q + l]: its part p holds lane 4 p + l of the registers 4 q .. 4 q + 3.
  for (int l = 0; l < 4; ++l) {
    const __m512i low01 = _mm512_shuffle_i32x4(x[l], x[4 + l], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(x[l], x[4 + l], 0xEE);
    const __m512i low23 = _mm512_shuffle_i32x4(x[8 + l], x[12 + l], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(x[8 + l], x[12 + l], 0xEE);
    y[l] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    y[4 + l] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
    y[8 + l] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    y[12 + l] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
  }
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}

namespace plain {

using HammingRows = HammingRowsBy<CountByNibbles>;
constexpr std::size_t kScanBlocks = 1;

#include "kernels/scan.inc"

#include "kernels/dots.inc"

#include "kernels/tiles_avx512.inc"

}  // namespace plain
}  // namespace
}  // namespace annidx

// ---- with VNNI --------------------------------------------------------------------------------

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(                                                                 \
    __attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512dq," \
                          "avx512vnni"))),                                                    \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif

namespace annidx {
namespace {
namespace vnni {

inline Sums dot4(Sums sums, Bytes rows, Bytes query) {
  return _mm512_dpbusd_epi32(sums, rows, query);
}

#include "kernels/dots.inc"

#include "kernels/tiles_avx512_vnni.inc"

}  // namespace vnni
}  // namespace
}  // namespace annidx

// ---- with VNNI, VBMI and VPOPCNTDQ ------------------------------------------------------------

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(                                                                 \
    __attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512dq," \
                          "avx512vnni,avx512vbmi,avx512vpopcntdq"))),                         \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512dq")
#pragma GCC target("avx512vnni,avx512vbmi,avx512vpopcntdq")
#endif

namespace annidx {
namespace {
namespace icelake {

struct CountByLanes {
  static __m512i count(__m512i x) { return _mm512_popcnt_epi64(x); }
};

using HammingRows = HammingRowsBy<CountByLanes>;

constexpr std::size_t kScanBlocks = 2;

// Four sub-quantizers at a time: one permutation puts the four codes of a point side by side, a
// second looks all of them up in the four tables' 64 bytes, a dot product with ones adds them.
template <std::size_t kBlocks>
inline void code_sums(const std::uint8_t* const (&blocks)[kBlocks], std::size_t n_codes,
                      const std::uint8_t* luts, F32x16 (&sums)[2 * kBlocks]) {
  const __m512i transpose =
      _mm512_set_epi32(0x3F2F1F0F, 0x3E2E1E0E, 0x3D2D1D0D, 0x3C2C1C0C, 0x3B2B1B0B, 0x3A2A1A0A,
                       0x39291909, 0x38281808, 0x37271707, 0x36261606, 0x35251505, 0x34241404,
                       0x33231303, 0x32221202, 0x31211101, 0x30201000);
  const __m512i nibble = _mm512_set1_epi8(0x0F);
  const __m512i table = _mm512_set1_epi32(0x30201000);
  const __m512i ones = _mm512_set1_epi8(1);
  constexpr int kAndOr = 0xEA;  // (a & b) | c
  const std::size_t block_bytes = n_codes * 16;
  __m512i low[kBlocks];
  __m512i high[kBlocks];
#pragma GCC unroll 4
  for (std::size_t b = 0; b < kBlocks; ++b) low[b] = high[b] = _mm512_setzero_si512();
  for (std::size_t i = 0; i < block_bytes; i += 64) {
    const __m512i lut = load_bytes(luts + i);
#pragma GCC unroll 4
    for (std::size_t b = 0; b < kBlocks; ++b) {
      const __m512i codes = _mm512_permutexvar_epi8(transpose, load_bytes(blocks[b] + i));
      const __m512i at_low = _mm512_ternarylogic_epi32(codes, nibble, table, kAndOr);
      const __m512i at_high =
          _mm512_ternarylogic_epi32(_mm512_srli_epi16(codes, 4), nibble, table, kAndOr);
      low[b] = _mm512_dpbusd_epi32(low[b], _mm512_permutexvar_epi8(at_low, lut), ones);
      high[b] = _mm512_dpbusd_epi32(high[b], _mm512_permutexvar_epi8(at_high, lut), ones);
    }
  }
#pragma GCC unroll 4
  for (std::size_t b = 0; b < kBlocks; ++b) {
    sums[2 * b] = _mm512_cvtepi32_ps(low[b]);
    sums[2 * b + 1] = _mm512_cvtepi32_ps(high[b]);
  }
}

#include "kernels/scan.inc"

}  // namespace icelake
}  // namespace
}  // namespace annidx

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace annidx {
namespace {

using namespace plain;

#include "kernels/table.inc"

}  // namespace

constexpr Kernels kAvx512Kernels = make_table("avx512", crc32c_sse42);
constexpr Kernels kAvx512VnniKernels = vnni::with_tiles(vnni::with_dots(kAvx512Kernels));
constexpr Kernels kAvx512IcelakeKernels = icelake::with_scans(kAvx512VnniKernels);

}  // namespace annidx

#endif  // ANNIDX_X86
