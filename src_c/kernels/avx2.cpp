// avx2.cpp owns the level for x86 CPUs with AVX2, FMA and F16C. Nothing in it may be called
// before levels.cpp has found the CPU fit. Headers come before the target region, so that none
// of their inline functions is compiled for AVX2.
#include <cstring>

#include "kernels/levels.h"
#include "kernels/pack_table.h"

#if ANNIDX_X86

#include <immintrin.h>

// What names an intrinsic for this level's registers, in sources that levels share.
#define ANNIDX_MM(operation) _mm256_##operation

namespace annidx {
namespace {

constexpr auto kPackTable = make_pack_table<8, 1>();

}  // namespace
}  // namespace annidx

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt")
#endif

namespace annidx {
namespace {

// ---- sixteen floats in two registers ----------------------------------------------------------

using Floats = __m256;

#include "kernels/floats_x86.inc"

struct F32x16 {
  __m256 v[2];
};
struct F64x8 {
  __m256d v[2];
};

constexpr std::size_t kMaxCodes = 256;
constexpr std::size_t kPanelRows = 4;
constexpr std::size_t kEncodeRows = 4;

#include "kernels/lanes.inc"

inline F32x16 zero16() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
inline F32x16 splat16(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
inline F32x16 load16(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }

// All ones in the first n of eight lanes; all eight when n is more.
inline __m256i first_lanes(std::size_t n) {
  const int clamped = n < 8 ? static_cast<int>(n) : 8;
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(clamped), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline F32x16 load16_part(const float* p, std::size_t n) {
  const __m256 low = _mm256_maskload_ps(p, first_lanes(n));
  if (n <= 8) return {{low, _mm256_setzero_ps()}};
  return {{low, _mm256_maskload_ps(p + 8, first_lanes(n - 8))}};
}
inline void store16(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.v[0]);
  _mm256_storeu_ps(p + 8, a.v[1]);
}
inline void store16_part(float* p, F32x16 a, std::size_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), a.v[0]);
  if (n > 8) _mm256_maskstore_ps(p + 8, first_lanes(n - 8), a.v[1]);
}
inline float tree_sum(F32x16 a) { return sum_of_lanes(_mm256_add_ps(a.v[0], a.v[1])); }

inline F32x16 min_of_numbers(F32x16 a) {
  return {{min_of_numbers(a.v[0]), min_of_numbers(a.v[1])}};
}
// The least and the greatest of each four tables' 16 entries.
inline void bounds4(const float* const (&tables)[4], float* low, float* high) {
  Floats least[4];
  Floats most[4];
#pragma GCC unroll 4
  for (int t = 0; t < 4; ++t) {
    const F32x16 x = load16(tables[t]);
    least[t] = _mm256_min_ps(x.v[0], min_of_numbers(x.v[1]));
    most[t] = _mm256_max_ps(x.v[0], max_of_numbers(x.v[1]));
  }
  const Bounds bounds = fold_bounds(least, most);
  store_bounds(bounds.low, bounds.high, low, high);
}
inline unsigned argmin16(F32x16 a) {
  a = min_of_numbers(a);
  const __m256 b = _mm256_min_ps(a.v[0], a.v[1]);
  const __m256 c = _mm256_min_ps(b, _mm256_permute2f128_ps(b, b, 1));
  const __m256 d = _mm256_min_ps(c, _mm256_permute_ps(c, 0x4E));
  const __m256 least = _mm256_min_ps(d, _mm256_permute_ps(d, 0xB1));
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.v[0], least, _CMP_EQ_OQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.v[1], least, _CMP_EQ_OQ));
  return static_cast<unsigned>(__builtin_ctz(static_cast<unsigned>(low | high << 8)));
}
// min(255, int(x)) for x >= 0; not a number gives 255.
inline void store16_codes(std::uint8_t* p, F32x16 a) {
  const __m256 most = _mm256_set1_ps(255.0f);
  const __m256i low = _mm256_cvttps_epi32(_mm256_min_ps(a.v[0], most));
  const __m256i high = _mm256_cvttps_epi32(_mm256_min_ps(a.v[1], most));
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

inline __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256i load_256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

inline F32x16 load16_half(const std::uint16_t* p) {
  return {{_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))}};
}
inline void store16_half(std::uint16_t* p, F32x16 a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v[0], kNearest));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.v[1], kNearest));
}

// ---- eight doubles in two registers -----------------------------------------------------------

inline F64x8 widen(__m256 a) {
  return {
      {_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))}};
}
inline F64x8 widen(__m256i a) {
  return {{_mm256_cvtepi32_pd(_mm256_castsi256_si128(a)),
           _mm256_cvtepi32_pd(_mm256_extracti128_si256(a, 1))}};
}
inline F64x8 zero8() { return {{_mm256_setzero_pd(), _mm256_setzero_pd()}}; }
inline F64x8 load8(const float* p) { return widen(_mm256_loadu_ps(p)); }
inline F64x8 load8(const std::uint16_t* p) { return widen(_mm256_cvtph_ps(load_128(p))); }
inline F64x8 load8(const std::int8_t* p) {
  return widen(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline F64x8 load8(const std::uint8_t* p) {
  return widen(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline F64x8 load8_part(const float* p, std::size_t n) {
  return widen(_mm256_maskload_ps(p, first_lanes(n)));
}
template <class T>
inline F64x8 load8_part(const T* p, std::size_t n) {
  T padded[8] = {};
  for (std::size_t i = 0; i < n; ++i) padded[i] = p[i];
  return load8(padded);
}
inline F64x8 mul_add(F64x8 a, F64x8 b, F64x8 c) {
  return {{_mm256_fmadd_pd(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_pd(a.v[1], b.v[1], c.v[1])}};
}
inline F64x8 abs8(F64x8 a) {
  const __m256d sign = _mm256_set1_pd(-0.0);
  return {{_mm256_andnot_pd(sign, a.v[0]), _mm256_andnot_pd(sign, a.v[1])}};
}
inline double tree_sum(F64x8 a) { return sum_of_lanes(_mm256_add_pd(a.v[0], a.v[1])); }

#include "kernels/loops.inc"

// ---- survivors --------------------------------------------------------------------------------

inline std::uint32_t pass_mask8(__m256 scores, __m256 limit) {
  return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(scores, limit, _CMP_LE_OQ)));
}
inline std::uint32_t pass_mask(F32x16 scores, F32x16 limit) {
  return pass_mask8(scores.v[0], limit.v[0]) | pass_mask8(scores.v[1], limit.v[1]) << 8;
}

// Which lanes pass, in order.
inline __m256i packed_lanes(std::uint32_t mask) {
  return _mm256_cvtepu8_epi32(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kPackTable.from[mask])));
}
inline void store_slots(Slot* p, __m256i slots) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), slots);
}
inline std::size_t append8(__m256 scores, std::uint32_t mask, Slot slot, Survivors out,
                           std::size_t count) {
  const __m256i lanes = packed_lanes(mask);
  _mm256_storeu_ps(out.scores + count, _mm256_permutevar8x32_ps(scores, lanes));
  store_slots(out.slots + count,
              _mm256_add_epi32(lanes, _mm256_set1_epi32(static_cast<int>(slot))));
  return count + static_cast<std::size_t>(_mm_popcnt_u32(mask));
}
inline std::size_t append16(F32x16 scores, std::uint32_t mask, Slot slot, Survivors out,
                            std::size_t count) {
  count = append8(scores.v[0], mask & 0xFFu, slot, out, count);
  return append8(scores.v[1], mask >> 8, slot + 8, out, count);
}

std::size_t select_at_most(const float* scores, std::size_t n, float threshold, Slot base,
                           Survivors out) {
  const __m256 limit = _mm256_set1_ps(threshold);
  std::size_t count = 0;
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 s = _mm256_loadu_ps(scores + i);
    count = append8(s, pass_mask8(s, limit), base + static_cast<Slot>(i), out, count);
  }
  if (i < n) {
    const __m256 s = _mm256_maskload_ps(scores + i, first_lanes(n - i));
    const std::uint32_t mask = pass_mask8(s, limit) & ((1u << (n - i)) - 1u);
    count = append8(s, mask, base + static_cast<Slot>(i), out, count);
  }
  return count;
}

std::size_t compact_at_most(float* scores, Slot* slots, std::size_t n, float threshold) {
  const __m256 limit = _mm256_set1_ps(threshold);
  std::size_t kept = 0;
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 s = _mm256_loadu_ps(scores + i);
    const __m256i places = load_256(slots + i);
    const std::uint32_t mask = pass_mask8(s, limit);
    const __m256i lanes = packed_lanes(mask);
    // Whole vectors end at i + 8 at most: what they overwrite has been read.
    _mm256_storeu_ps(scores + kept, _mm256_permutevar8x32_ps(s, lanes));
    store_slots(slots + kept, _mm256_permutevar8x32_epi32(places, lanes));
    kept += static_cast<std::size_t>(_mm_popcnt_u32(mask));
  }
  return compact_rest(scores, slots, i, n, threshold, kept);
}

// ---- bytes, words and sums in a register ------------------------------------------------------

using Bytes = __m256i;
using Sums = __m256i;
constexpr std::size_t kByteWidth = 32;
constexpr int kSumsUnrolled = 1;

inline Bytes load_bytes(const void* p) { return load_256(p); }
inline Bytes load_bytes_part(const void* p, std::size_t n) {
  std::uint8_t padded[kByteWidth] = {};
  std::memcpy(padded, p, n);
  return load_256(padded);
}
inline Bytes repeat16(__m128i x) { return _mm256_broadcastsi128_si256(x); }
inline F32x16 word_totals(Bytes even, Bytes odd) {
  const __m256i low = _mm256_unpacklo_epi16(even, odd);
  const __m256i high = _mm256_unpackhi_epi16(even, odd);
  const __m128i a = _mm_add_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  const __m128i b = _mm_add_epi16(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  return {
      {_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(a)), _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(b))}};
}
inline __m128i totals4(const Sums (&sums)[4]) {
  const __m256i a = _mm256_hadd_epi32(sums[0], sums[1]);
  const __m256i b = _mm256_hadd_epi32(sums[2], sums[3]);
  const __m256i c = _mm256_hadd_epi32(a, b);
  return _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
}

#include "kernels/bytes_x86.inc"

// ---- rows' distances --------------------------------------------------------------------------

inline F32x16 to_floats(const std::uint32_t* p) {
  return {{_mm256_cvtepi32_ps(load_256(p)), _mm256_cvtepi32_ps(load_256(p + 8))}};
}

// out[r] = the total of the four 64-bit lanes of lanes[r], each total below 2^32, for 8 rows.
inline void total8(const __m256i (&lanes)[8], std::uint32_t* out) {
  __m256i pairs[4];  // rows r (low half of each lane) and r + 4 (high half)
  for (int r = 0; r < 4; ++r) {
    pairs[r] = _mm256_add_epi64(lanes[r], _mm256_slli_epi64(lanes[r + 4], 32));
  }
  const __m256i a = _mm256_add_epi64(_mm256_unpacklo_epi64(pairs[0], pairs[1]),
                                     _mm256_unpackhi_epi64(pairs[0], pairs[1]));
  const __m256i b = _mm256_add_epi64(_mm256_unpacklo_epi64(pairs[2], pairs[3]),
                                     _mm256_unpackhi_epi64(pairs[2], pairs[3]));
  const __m256i all = _mm256_add_epi64(_mm256_permute2x128_si256(a, b, 0x20),
                                       _mm256_permute2x128_si256(a, b, 0x31));
  const __m256i in_order =
      _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), in_order);
}

// A row's last bytes that do not fill a register are left to metric.rest.
template <class Metric>
inline void row_distances8(const Metric& metric, const std::uint8_t* rows, std::size_t bytes,
                           std::uint32_t* out) {
  Bytes sums[8];
  add_lanes<8>(metric, rows, bytes, sums);
  total8(sums, out);
  // Said anew: so compilers see that the rest is short, and do not unroll its loop.
  const std::size_t whole = bytes - bytes % kByteWidth;
  if (whole == bytes) return;
  for (std::size_t r = 0; r < 8; ++r) out[r] += metric.rest(rows + r * bytes, whole, bytes);
}

struct ManhattanRows {
  const std::uint8_t* query;
  std::uint8_t flip;

  Bytes lanes(Bytes row, Bytes q) const {
    return byte_differences(row ^ splat_byte(static_cast<char>(flip)), q);
  }
  // Of bytes [from, to), fewer than a vector.
  std::uint32_t rest(const std::uint8_t* row, std::size_t from, std::size_t to) const {
    std::uint32_t sum = 0;
    for (std::size_t i = from; i < to; ++i) {
      const int d = (row[i] ^ flip) - query[i];
      sum += static_cast<std::uint32_t>(d < 0 ? -d : d);
    }
    return sum;
  }
  void distances16(const std::uint8_t* rows, std::size_t bytes, std::uint32_t* out) const {
    row_distances8(*this, rows, bytes, out);
    row_distances8(*this, rows + 8 * bytes, bytes, out + 8);
  }
  std::uint32_t distance(const std::uint8_t* row, std::size_t bytes) const {
    return rest(row, 0, bytes);
  }
};

struct HammingRows {
  const std::uint8_t* query;

  Bytes lanes(Bytes row, Bytes q) const { return CountByNibbles::count(row ^ q); }
  std::uint32_t rest(const std::uint8_t* row, std::size_t from, std::size_t to) const {
    return hamming(row + from, query + from, to - from);
  }
  void distances16(const std::uint8_t* rows, std::size_t bytes, std::uint32_t* out) const {
    row_distances8(*this, rows, bytes, out);
    row_distances8(*this, rows + 8 * bytes, bytes, out + 8);
  }
  std::uint32_t distance(const std::uint8_t* row, std::size_t bytes) const {
    return rest(row, 0, bytes);
  }
};

constexpr std::size_t kScanBlocks = 1;

#include "kernels/scan.inc"

// ---- dot products -----------------------------------------------------------------------------

constexpr std::size_t kRouteBlocks = 2;
constexpr bool kRowsSigned = false;

inline Sums one_sum(std::int32_t x) { return _mm256_setr_epi32(x, 0, 0, 0, 0, 0, 0, 0); }
inline F32x16 sums_to_floats(const Sums (&sums)[2]) {
  return {{_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])}};
}

#include "kernels/records_x86.inc"

#include "kernels/dots.inc"

#include "kernels/tiles_avx2.inc"

}  // namespace
}  // namespace annidx

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace annidx {
namespace {

#include "kernels/table.inc"

}  // namespace

constexpr Kernels kAvx2Kernels = make_table("avx2", crc32c_sse42);

}  // namespace annidx

#endif  // ANNIDX_X86
