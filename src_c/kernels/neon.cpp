// neon.cpp owns the level for 64-bit ARM, and its variant for CPUs with the dot-product
// extension, which may not be called before levels.cpp has found the CPU fit. Headers come before
// the target region, so that none of their inline functions is compiled for the extension.
#include <cstring>

#include "kernels/levels.h"
#include "kernels/pack_table.h"

#if ANNIDX_NEON

#include <arm_neon.h>

namespace annidx {
namespace {

constexpr auto kPackTable = make_pack_table<4, 4>();

// ---- sixteen floats in four registers ---------------------------------------------------------

struct F32x16 {
  float32x4_t v[4];
};
struct F64x8 {
  float64x2_t v[4];
};

constexpr std::size_t kMaxCodes = 256;
constexpr std::size_t kPanelRows = 4;
constexpr std::size_t kEncodeRows = 4;

#include "kernels/lanes.inc"

inline F32x16 splat16(float x) {
  const float32x4_t a = vdupq_n_f32(x);
  return {{a, a, a, a}};
}
inline F32x16 zero16() { return splat16(0.0f); }
inline F32x16 load16(const float* p) {
  return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
inline F32x16 load16_part(const float* p, std::size_t n) {
  float padded[16] = {};
  std::memcpy(padded, p, n * sizeof *p);
  return load16(padded);
}
inline void store16(float* p, const F32x16& a) {
  vst1q_f32(p, a.v[0]);
  vst1q_f32(p + 4, a.v[1]);
  vst1q_f32(p + 8, a.v[2]);
  vst1q_f32(p + 12, a.v[3]);
}
inline void store16_part(float* p, const F32x16& a, std::size_t n) {
  float padded[16];
  store16(padded, a);
  std::memcpy(p, padded, n * sizeof *p);
}
inline float tree_sum(const F32x16& a) {
  const float32x4_t b = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t c = vadd_f32(vget_low_f32(b), vget_high_f32(b));
  return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}

// vminnm and vmaxnm prefer a number to what is not one, which makes such entries count as
// +infinity for the minimum and -infinity for the maximum.
inline F32x16 min_of_numbers(const F32x16& a) {
  const float32x4_t infinity = vdupq_n_f32(__builtin_huge_valf());
  return {{vminnmq_f32(a.v[0], infinity), vminnmq_f32(a.v[1], infinity),
           vminnmq_f32(a.v[2], infinity), vminnmq_f32(a.v[3], infinity)}};
}
inline float32x4_t least_lanes(const F32x16& a) {
  const F32x16 b = min_of_numbers(a);
  return vminnmq_f32(vminnmq_f32(b.v[0], b.v[1]), vminnmq_f32(b.v[2], b.v[3]));
}
inline float32x4_t most_lanes(const F32x16& a) {
  const float32x4_t infinity = vdupq_n_f32(-__builtin_huge_valf());
  return vmaxnmq_f32(vmaxnmq_f32(vmaxnmq_f32(a.v[0], infinity), vmaxnmq_f32(a.v[1], infinity)),
                     vmaxnmq_f32(vmaxnmq_f32(a.v[2], infinity), vmaxnmq_f32(a.v[3], infinity)));
}
// The least and the greatest of each four tables' 16 entries.
inline void bounds4(const float* const (&tables)[4], float* low, float* high) {
  float32x4_t least[4];
  float32x4_t most[4];
  for (int t = 0; t < 4; ++t) {
    least[t] = least_lanes(load16(tables[t]));
    most[t] = most_lanes(load16(tables[t]));
  }
  vst1q_f32(low, vpminnmq_f32(vpminnmq_f32(least[0], least[1]), vpminnmq_f32(least[2], least[3])));
  vst1q_f32(high, vpmaxnmq_f32(vpmaxnmq_f32(most[0], most[1]), vpmaxnmq_f32(most[2], most[3])));
}

// One bit a lane from four vectors of all-ones or all-zero lanes.
inline std::uint32_t bit_mask(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  const uint8x16_t bits = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t low = vcombine_u16(vmovn_u32(a), vmovn_u32(b));
  const uint16x8_t high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
  const uint8x16_t set = vandq_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)), bits);
  return std::uint32_t{vaddv_u8(vget_low_u8(set))} | std::uint32_t{vaddv_u8(vget_high_u8(set))}
                                                         << 8;
}
inline unsigned argmin16(const F32x16& a) {
  const F32x16 b = min_of_numbers(a);
  const float32x4_t least = vdupq_n_f32(vminnmvq_f32(least_lanes(b)));
  const std::uint32_t at = bit_mask(vceqq_f32(b.v[0], least), vceqq_f32(b.v[1], least),
                                    vceqq_f32(b.v[2], least), vceqq_f32(b.v[3], least));
  return static_cast<unsigned>(__builtin_ctz(at));
}
// min(255, int(x)) for x >= 0; not a number gives 255.
inline void store16_codes(std::uint8_t* p, const F32x16& a) {
  const float32x4_t most = vdupq_n_f32(255.0f);
  uint16x4_t words[4];
  for (int i = 0; i < 4; ++i) words[i] = vmovn_u32(vcvtq_u32_f32(vminnmq_f32(a.v[i], most)));
  const uint8x8_t low = vmovn_u16(vcombine_u16(words[0], words[1]));
  const uint8x8_t high = vmovn_u16(vcombine_u16(words[2], words[3]));
  vst1q_u8(p, vcombine_u8(low, high));
}

inline float16x4_t load_halves(const std::uint16_t* p) { return vreinterpret_f16_u16(vld1_u16(p)); }
inline F32x16 load16_half(const std::uint16_t* p) {
  return {{vcvt_f32_f16(load_halves(p)), vcvt_f32_f16(load_halves(p + 4)),
           vcvt_f32_f16(load_halves(p + 8)), vcvt_f32_f16(load_halves(p + 12))}};
}
inline void store16_half(std::uint16_t* p, const F32x16& a) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}

// ---- eight doubles in four registers ----------------------------------------------------------

inline F64x8 widen(float32x4_t low, float32x4_t high) {
  return {{vcvt_f64_f32(vget_low_f32(low)), vcvt_high_f64_f32(low),
           vcvt_f64_f32(vget_low_f32(high)), vcvt_high_f64_f32(high)}};
}
inline F64x8 zero8() {
  const float64x2_t a = vdupq_n_f64(0.0);
  return {{a, a, a, a}};
}
inline F64x8 load8(const float* p) { return widen(vld1q_f32(p), vld1q_f32(p + 4)); }
inline F64x8 load8(const std::uint16_t* p) {
  return widen(vcvt_f32_f16(load_halves(p)), vcvt_f32_f16(load_halves(p + 4)));
}
inline F64x8 load8(const std::int8_t* p) {
  const int16x8_t words = vmovl_s8(vld1_s8(p));
  return widen(vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))), vcvtq_f32_s32(vmovl_high_s16(words)));
}
inline F64x8 load8(const std::uint8_t* p) {
  const uint16x8_t words = vmovl_u8(vld1_u8(p));
  return widen(vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))), vcvtq_f32_u32(vmovl_high_u16(words)));
}
template <class T>
inline F64x8 load8_part(const T* p, std::size_t n) {
  T padded[8] = {};
  for (std::size_t i = 0; i < n; ++i) padded[i] = p[i];
  return load8(padded);
}
inline F64x8 mul_add(const F64x8& a, const F64x8& b, const F64x8& c) {
  return {{vfmaq_f64(c.v[0], a.v[0], b.v[0]), vfmaq_f64(c.v[1], a.v[1], b.v[1]),
           vfmaq_f64(c.v[2], a.v[2], b.v[2]), vfmaq_f64(c.v[3], a.v[3], b.v[3])}};
}
inline F64x8 abs8(const F64x8& a) {
  return {{vabsq_f64(a.v[0]), vabsq_f64(a.v[1]), vabsq_f64(a.v[2]), vabsq_f64(a.v[3])}};
}
inline double tree_sum(const F64x8& a) {
  const float64x2_t b = vaddq_f64(vaddq_f64(a.v[0], a.v[2]), vaddq_f64(a.v[1], a.v[3]));
  return vgetq_lane_f64(b, 0) + vgetq_lane_f64(b, 1);
}

inline std::uint32_t popcount64(std::uint64_t x) { return vaddv_u8(vcnt_u8(vcreate_u8(x))); }

#include "kernels/loops.inc"

// ---- survivors --------------------------------------------------------------------------------

inline std::uint32_t pass_mask(const F32x16& scores, const F32x16& limit) {
  return bit_mask(vcleq_f32(scores.v[0], limit.v[0]), vcleq_f32(scores.v[1], limit.v[1]),
                  vcleq_f32(scores.v[2], limit.v[2]), vcleq_f32(scores.v[3], limit.v[3]));
}

inline std::size_t append16(const F32x16& scores, std::uint32_t mask, Slot slot, Survivors out,
                            std::size_t count) {
  const uint32x4_t lanes = {0, 1, 2, 3};
#pragma GCC unroll 4
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::uint32_t own = (mask >> (4 * i)) & 15u;
    const uint8x16_t from = vld1q_u8(kPackTable.from[own]);
    const uint8x16_t slots = vreinterpretq_u8_u32(vaddq_u32(vdupq_n_u32(slot + 4 * i), lanes));
    const uint8x16_t packed = vqtbl1q_u8(vreinterpretq_u8_f32(scores.v[i]), from);
    vst1q_f32(out.scores + count, vreinterpretq_f32_u8(packed));
    vst1q_u32(out.slots + count, vreinterpretq_u32_u8(vqtbl1q_u8(slots, from)));
    count += static_cast<std::size_t>(__builtin_popcount(own));
  }
  return count;
}

std::size_t select_at_most(const float* scores, std::size_t n, float threshold, Slot base,
                           Survivors out) {
  const F32x16 limit = splat16(threshold);
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; i += 16) {
    const std::size_t some = n - i < 16 ? n - i : 16;
    const F32x16 s = some < 16 ? load16_part(scores + i, some) : load16(scores + i);
    const std::uint32_t mask = pass_mask(s, limit) & ((1u << some) - 1u);
    if (mask != 0) count = append16(s, mask, base + static_cast<Slot>(i), out, count);
  }
  return count;
}

std::size_t compact_at_most(float* scores, Slot* slots, std::size_t n, float threshold) {
  return compact_rest(scores, slots, 0, n, threshold, 0);
}

// ---- sums of codes ----------------------------------------------------------------------------

constexpr std::size_t kScanBlocks = 2;

struct WordSums {
  uint16x8_t low;
  uint16x8_t high;

  void add_bytes(uint8x16_t bytes) {
    low = vaddw_u8(low, vget_low_u8(bytes));
    high = vaddw_high_u8(high, bytes);
  }
  F32x16 totals() const {
    return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_high_u16(low)),
             vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_high_u16(high))}};
  }
};

template <std::size_t kBlocks>
inline void code_sums(const std::uint8_t* const (&blocks)[kBlocks], std::size_t n_codes,
                      const std::uint8_t* luts, F32x16 (&sums)[2 * kBlocks]) {
  const uint8x16_t nibble = vdupq_n_u8(15);
  const std::size_t block_bytes = n_codes * 16;
  const WordSums zero{vdupq_n_u16(0), vdupq_n_u16(0)};
  WordSums low[kBlocks];
  WordSums high[kBlocks];
  for (std::size_t b = 0; b < kBlocks; ++b) low[b] = high[b] = zero;
  for (std::size_t i = 0; i < block_bytes; i += 16) {
    const uint8x16_t lut = vld1q_u8(luts + i);
#pragma GCC unroll 2
    for (std::size_t b = 0; b < kBlocks; ++b) {
      const uint8x16_t codes = vld1q_u8(blocks[b] + i);
      low[b].add_bytes(vqtbl1q_u8(lut, vandq_u8(codes, nibble)));
      high[b].add_bytes(vqtbl1q_u8(lut, vshrq_n_u8(codes, 4)));
    }
  }
  for (std::size_t b = 0; b < kBlocks; ++b) {
    sums[2 * b] = low[b].totals();
    sums[2 * b + 1] = high[b].totals();
  }
}

// ---- rows' distances --------------------------------------------------------------------------

inline F32x16 to_floats(const std::uint32_t* p) {
  return {{vcvtq_f32_u32(vld1q_u32(p)), vcvtq_f32_u32(vld1q_u32(p + 4)),
           vcvtq_f32_u32(vld1q_u32(p + 8)), vcvtq_f32_u32(vld1q_u32(p + 12))}};
}

struct ManhattanRows {
  const std::uint8_t* query;
  std::uint8_t flip;

  std::uint32_t distance(const std::uint8_t* row, std::size_t bytes) const {
    const uint8x16_t flips = vdupq_n_u8(flip);
    uint32x4_t sums = vdupq_n_u32(0);
    std::size_t i = 0;
    for (; i + 16 <= bytes; i += 16) {
      const uint8x16_t d = vabdq_u8(veorq_u8(vld1q_u8(row + i), flips), vld1q_u8(query + i));
      sums = vpadalq_u16(sums, vpaddlq_u8(d));
    }
    std::uint32_t sum = vaddvq_u32(sums);
    for (; i < bytes; ++i) {
      const int d = (row[i] ^ flip) - query[i];
      sum += static_cast<std::uint32_t>(d < 0 ? -d : d);
    }
    return sum;
  }
  void distances16(const std::uint8_t* rows, std::size_t bytes, std::uint32_t* out) const {
    for (std::size_t r = 0; r < 16; ++r) out[r] = distance(rows + r * bytes, bytes);
  }
};

struct HammingRows {
  const std::uint8_t* query;

  std::uint32_t distance(const std::uint8_t* row, std::size_t bytes) const {
    uint32x4_t sums = vdupq_n_u32(0);
    std::size_t i = 0;
    for (; i + 16 <= bytes; i += 16) {
      const uint8x16_t counts = vcntq_u8(veorq_u8(vld1q_u8(row + i), vld1q_u8(query + i)));
      sums = vpadalq_u16(sums, vpaddlq_u8(counts));
    }
    return vaddvq_u32(sums) + hamming(row + i, query + i, bytes - i);
  }
  void distances16(const std::uint8_t* rows, std::size_t bytes, std::uint32_t* out) const {
    for (std::size_t r = 0; r < 16; ++r) out[r] = distance(rows + r * bytes, bytes);
  }
};

#include "kernels/scan.inc"

// ---- code records -----------------------------------------------------------------------------

// Sixteen registers, byte j of register r from record r: turned so that register i holds byte i of
// all records. Four rounds of interleaving transpose 16 x 16 bytes.
inline void transpose_bytes(uint8x16_t (&x)[16]) {
  for (int round = 0; round < 4; ++round) {
    uint8x16_t y[16];
    for (int i = 0; i < 8; ++i) {
      y[2 * i] = vzip1q_u8(x[i], x[i + 8]);
      y[2 * i + 1] = vzip2q_u8(x[i], x[i + 8]);
    }
    for (int i = 0; i < 16; ++i) x[i] = y[i];
  }
}

void gather_codes(const std::uint8_t* records, std::size_t stride, const Slot* slots, std::size_t n,
                  std::size_t n_codes, std::uint8_t* block) {
  for (std::size_t at = 0; at < n_codes / 2; at += 16) {
    uint8x16_t low[16], high[16];
    for (std::size_t i = 0; i < 16; ++i) {
      low[i] = vld1q_u8(records + std::size_t{slots[i < n ? i : n - 1]} * stride + at);
      high[i] = vld1q_u8(records + std::size_t{slots[16 + i < n ? 16 + i : n - 1]} * stride + at);
    }
    transpose_bytes(low);
    transpose_bytes(high);
    const uint8x16_t nibble = vdupq_n_u8(0x0F);
    const std::size_t bytes = n_codes / 2 - at < 16 ? n_codes / 2 - at : 16;
    for (std::size_t j = 0; j < bytes; ++j) {
      std::uint8_t* code = block + 2 * (at + j) * 16;
      vst1q_u8(code, vorrq_u8(vandq_u8(low[j], nibble), vshlq_n_u8(high[j], 4)));
      vst1q_u8(code + 16, vorrq_u8(vshrq_n_u8(low[j], 4), vbicq_u8(high[j], nibble)));
    }
  }
}

// ---- dot products -----------------------------------------------------------------------------

using Bytes = int8x16_t;
using Sums = int32x4_t;
constexpr std::size_t kByteWidth = 16;
constexpr std::size_t kRouteBlocks = 4;
constexpr bool kRowsSigned = true;

inline Bytes load_bytes(const void* p) { return vld1q_s8(static_cast<const std::int8_t*>(p)); }
inline Bytes load_bytes_part(const void* p, std::size_t n) {
  std::int8_t padded[kByteWidth] = {};
  std::memcpy(padded, p, n);
  return vld1q_s8(padded);
}
inline Bytes flip_bytes(Bytes a) { return veorq_s8(a, vdupq_n_s8(-128)); }
inline Bytes broadcast4(const void* p) {
  std::int32_t four;
  std::memcpy(&four, p, sizeof four);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
inline Sums splat_sums(std::int32_t x) { return vdupq_n_s32(x); }
inline Sums one_sum(std::int32_t x) { return vsetq_lane_s32(x, vdupq_n_s32(0), 0); }
inline F32x16 sums_to_floats(const Sums (&sums)[4]) {
  return {{vcvtq_f32_s32(sums[0]), vcvtq_f32_s32(sums[1]), vcvtq_f32_s32(sums[2]),
           vcvtq_f32_s32(sums[3])}};
}
inline int32x4_t totals4(const Sums (&sums)[4]) {
  return vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
}
inline float32x2_t combine2(int32x2_t high, int32x2_t low) {
  const float64x2_t h = vcvtq_f64_s64(vmovl_s32(high));
  const float64x2_t l = vcvtq_f64_s64(vmovl_s32(low));
  return vcvt_f32_f64(vfmaq_f64(l, h, vdupq_n_f64(128.0)));
}
inline void combine4(const Sums (&high)[4], const Sums (&low)[4], float step, float* out) {
  const int32x4_t h = totals4(high);
  const int32x4_t l = totals4(low);
  const float32x4_t dots = vcombine_f32(combine2(vget_low_s32(h), vget_low_s32(l)),
                                        combine2(vget_high_s32(h), vget_high_s32(l)));
  vst1q_f32(out, vmulq_f32(vdupq_n_f32(step), dots));
}

// Sixteen values from the `at`-th on of each of four rows, as four groups of four: group g of row c
// goes to out[g * kTilePoints * 4 + c * 4], for the first n_groups.
inline void turn_columns(const std::uint8_t* const* rows, std::size_t at, std::uint8_t change,
                         std::size_t n_groups, std::uint8_t* out) {
  const uint8x16_t changes = vdupq_n_u8(change);
  uint32x4_t x[4];
  for (int i = 0; i < 4; ++i) {
    x[i] = vreinterpretq_u32_u8(veorq_u8(vld1q_u8(rows[i] + at), changes));
  }
  const uint32x4_t low01 = vzip1q_u32(x[0], x[2]), high01 = vzip2q_u32(x[0], x[2]);
  const uint32x4_t low23 = vzip1q_u32(x[1], x[3]), high23 = vzip2q_u32(x[1], x[3]);
  const uint32x4_t turned[4] = {vzip1q_u32(low01, low23), vzip2q_u32(low01, low23),
                                vzip1q_u32(high01, high23), vzip2q_u32(high01, high23)};
  for (std::size_t g = 0; g < n_groups; ++g) {
    vst1q_u8(out + g * kTilePoints * 4, vreinterpretq_u8_u32(turned[g]));
  }
}

namespace plain {

// Exact because queries stay in [-64, 63]: pair sums fit 16 bits.
inline Sums dot4(Sums sums, Bytes rows, Bytes query) {
  const int16x8_t low = vmull_s8(vget_low_s8(rows), vget_low_s8(query));
  const int16x8_t high = vmull_high_s8(rows, query);
  return vpadalq_s16(sums, vpaddq_s16(low, high));
}

#include "kernels/dots.inc"

#include "kernels/tiles_neon.inc"

}  // namespace plain
}  // namespace
}  // namespace annidx

// ---- with the dot-product extension -----------------------------------------------------------

#if ANNIDX_NEON_DOT

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

namespace annidx {
namespace {
namespace dotprod {

inline Sums dot4(Sums sums, Bytes rows, Bytes query) { return vdotq_s32(sums, rows, query); }

#include "kernels/dots.inc"

constexpr std::size_t kTileRowsAtOnce = 2;

#include "kernels/tiles_dot.inc"

}  // namespace dotprod
}  // namespace
}  // namespace annidx

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // ANNIDX_NEON_DOT

namespace annidx {
namespace {

using namespace plain;

#include "kernels/table.inc"

}  // namespace

constexpr Kernels kNeonKernels = make_table("neon", crc32c_arm);
#if ANNIDX_NEON_DOT
constexpr Kernels kNeonDotKernels = dotprod::with_tiles(dotprod::with_dots(kNeonKernels));
#endif

}  // namespace annidx

#endif  // ANNIDX_NEON
