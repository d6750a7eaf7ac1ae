// scalar.cpp owns the level that runs on every CPU and against which all others are tested.
// It must not use intrinsics.
#include <cmath>
#include <cstring>

#include "kernels/levels.h"

namespace annidx {
namespace {

// ---- vectors as arrays ------------------------------------------------------------------------

struct F32x16 {
  float v[16];
};
struct F64x8 {
  double v[8];
};

constexpr std::size_t kMaxCodes = 256;
constexpr std::size_t kPanelRows = 4;
constexpr std::size_t kEncodeRows = 2;

#include "kernels/lanes.inc"

inline F32x16 splat16(float x) {
  F32x16 a;
  for (float& e : a.v) e = x;
  return a;
}
inline F32x16 zero16() { return splat16(0.0f); }
inline F32x16 load16(const float* p) {
  F32x16 a;
  std::memcpy(a.v, p, sizeof a.v);
  return a;
}
inline F32x16 load16_part(const float* p, std::size_t n) {
  F32x16 a = zero16();
  std::memcpy(a.v, p, n * sizeof *p);
  return a;
}
inline void store16(float* p, const F32x16& a) { std::memcpy(p, a.v, sizeof a.v); }
inline void store16_part(float* p, const F32x16& a, std::size_t n) {
  std::memcpy(p, a.v, n * sizeof *p);
}
inline float tree_sum(F32x16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  }
  return a.v[0];
}
// The least and the greatest of each four tables' 16 entries; those that are not numbers count as
// +infinity and -infinity. So they do in argmin16.
inline void bounds4(const float* const (&tables)[4], float* low, float* high) {
  for (int t = 0; t < 4; ++t) {
    low[t] = HUGE_VALF;
    high[t] = -HUGE_VALF;
    for (int c = 0; c < 16; ++c) {
      const float x = tables[t][c];
      low[t] = x < low[t] ? x : low[t];
      high[t] = x > high[t] ? x : high[t];
    }
  }
}
inline unsigned argmin16(const F32x16& a) {
  float least = HUGE_VALF;
  unsigned at = 0;
  for (unsigned i = 0; i < 16; ++i) {
    if (a.v[i] < least) {
      least = a.v[i];
      at = i;
    }
  }
  return at;
}
// min(255, int(x)) for x >= 0; not a number gives 255.
inline void store16_codes(std::uint8_t* p, const F32x16& a) {
  for (int i = 0; i < 16; ++i) {
    p[i] = a.v[i] < 255.0f ? static_cast<std::uint8_t>(a.v[i]) : std::uint8_t{255};
  }
}

inline F64x8 zero8() { return F64x8{}; }
inline F64x8 mul_add(const F64x8& a, const F64x8& b, const F64x8& c) { return add(mul(a, b), c); }
inline F64x8 abs8(F64x8 a) {
  for (double& x : a.v) x = x < 0.0 ? -x : x;
  return a;
}
inline double tree_sum(F64x8 a) {
  for (int half = 4; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  }
  return a.v[0];
}

// ---- half precision ---------------------------------------------------------------------------

constexpr std::uint32_t kFloatInfinity = 0x7F800000u;

inline float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16;
  const std::uint32_t exponent = (h >> 10) & 0x1Fu;
  const std::uint32_t mantissa = h & 0x3FFu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 31) {
    const std::uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
    return float_of(sign | kFloatInfinity | quiet | (mantissa << 13));
  }
  return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

inline std::uint16_t float_to_half(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7FFFFFFFu;
  std::uint32_t half;
  if (bits > kFloatInfinity) {
    half = 0x7E00u | ((bits >> 13) & 0x3FFu);
  } else if (bits >= 0x477FF000u) {  // 65520 and more round to infinity
    half = 0x7C00u;
  } else if (bits < 0x38800000u) {  // below 2^-14: adding 0.5 rounds at the last subnormal place
    const float shifted = float_of(bits) + 0.5f;
    std::uint32_t rounded;
    std::memcpy(&rounded, &shifted, sizeof rounded);
    half = rounded - 0x3F000000u;
  } else {  // re-bias the exponent, add half a place less one, and one more if odd
    const std::uint32_t odd = (bits >> 13) & 1u;
    half = (bits - 0x38000000u + 0xFFFu + odd) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

inline F32x16 load16_half(const std::uint16_t* p) {
  F32x16 a;
  for (int i = 0; i < 16; ++i) a.v[i] = half_to_float(p[i]);
  return a;
}
inline void store16_half(std::uint16_t* p, const F32x16& a) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(a.v[i]);
}

inline double widen(float x) { return static_cast<double>(x); }
inline double widen(std::uint16_t half) { return static_cast<double>(half_to_float(half)); }
inline double widen(std::int8_t x) { return static_cast<double>(x); }
inline double widen(std::uint8_t x) { return static_cast<double>(x); }

template <class T>
inline F64x8 load8_part(const T* p, std::size_t n) {
  F64x8 a = zero8();
  for (std::size_t i = 0; i < n; ++i) a.v[i] = widen(p[i]);
  return a;
}
template <class T>
inline F64x8 load8(const T* p) {
  return load8_part(p, 8);
}

inline std::uint32_t popcount64(std::uint64_t x) {
  x = x - ((x >> 1) & 0x5555555555555555u);
  x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
  x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
  return static_cast<std::uint32_t>((x * 0x0101010101010101u) >> 56);
}

#include "kernels/loops.inc"

// ---- routing ----------------------------------------------------------------------------------

void route_scores(const std::uint8_t* centroids, std::size_t n_blocks, std::size_t dim4,
                  const std::int8_t* query, std::int32_t query_sum, float query_step,
                  const float* mult, const float* bias, float* out) {
  for (std::size_t b = 0; b < n_blocks; ++b) {
    std::int32_t dot[kPanelWidth];
    for (std::int32_t& d : dot) d = -128 * query_sum;
    for (std::size_t j = 0; j < dim4; j += 4, centroids += 4 * kPanelWidth) {
      for (std::size_t c = 0; c < kPanelWidth; ++c) {
        for (std::size_t k = 0; k < 4; ++k) dot[c] += centroids[4 * c + k] * query[j + k];
      }
    }
    for (std::size_t c = 0; c < kPanelWidth; ++c) {
      const std::size_t i = b * kPanelWidth + c;
      out[i] = bias[i] - mult[i] * (query_step * static_cast<float>(dot[c]));
    }
  }
}

inline std::size_t append_if(float score, float threshold, Slot slot, Survivors out,
                             std::size_t count) {
  out.scores[count] = score;
  out.slots[count] = slot;
  return count + (score <= threshold ? 1 : 0);
}

std::size_t select_at_most(const float* scores, std::size_t n, float threshold, Slot base,
                           Survivors out) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i) {
    count = append_if(scores[i], threshold, base + static_cast<Slot>(i), out, count);
  }
  return count;
}

std::size_t compact_at_most(float* scores, Slot* slots, std::size_t n, float threshold) {
  return compact_rest(scores, slots, 0, n, threshold, 0);
}

// ---- scanning ---------------------------------------------------------------------------------

inline bool is_eligible(const std::uint64_t* eligible, std::size_t slot) {
  return eligible == nullptr || ((eligible[slot / 64] >> (slot % 64)) & 1u) != 0;
}

struct Additive {
  static float score(float a, float scalar) { return a + scalar; }
};
struct Multiplicative {
  static float score(float a, float scalar) { return a * scalar; }
};

template <class Combine>
inline std::size_t scan_codes(const std::uint8_t* blocks, std::size_t n_codes, const CodeRun* runs,
                              std::size_t n_runs, const std::uint8_t* luts, float step,
                              float threshold, const std::uint64_t* eligible, Survivors out) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < n_runs; ++i) {
    const CodeRun& run = runs[i];
    for (std::uint32_t p = 0; p < run.points; ++p) {
      const Slot slot = run.first_slot + p;
      if (!is_eligible(eligible, slot)) continue;
      const std::size_t lane = p % kBlockPoints;
      const std::uint8_t* block =
          blocks + (std::size_t{run.first_block} + p / kBlockPoints) * code_block_bytes(n_codes);
      std::uint32_t sum = 0;
      for (std::size_t m = 0; m < n_codes; ++m) {
        const std::uint8_t pair = block[m * kCodewords + lane % 16];
        sum += luts[m * kCodewords + (lane < 16 ? pair & 15 : pair >> 4)];
      }
      float scalar;
      std::memcpy(&scalar, block + n_codes * kCodewords + lane * sizeof(float), sizeof(float));
      const float a = run.score + step * static_cast<float>(sum);
      count = append_if(Combine::score(a, scalar), threshold, slot, out, count);
    }
  }
  return count;
}

std::size_t scan_codes_additive(const std::uint8_t* blocks, std::size_t n_codes,
                                const CodeRun* runs, std::size_t n_runs, const std::uint8_t* luts,
                                float step, float threshold, const std::uint64_t* eligible,
                                Survivors out) {
  return scan_codes<Additive>(blocks, n_codes, runs, n_runs, luts, step, threshold, eligible, out);
}

std::size_t scan_codes_multiplicative(const std::uint8_t* blocks, std::size_t n_codes,
                                      const CodeRun* runs, std::size_t n_runs,
                                      const std::uint8_t* luts, float step, float threshold,
                                      const std::uint64_t* eligible, Survivors out) {
  return scan_codes<Multiplicative>(blocks, n_codes, runs, n_runs, luts, step, threshold, eligible,
                                    out);
}

std::size_t scan_l1_u8(const std::uint8_t* rows, std::size_t points, std::size_t dim,
                       std::uint8_t flip, const std::uint8_t* query, float step, float threshold,
                       Slot first_slot, const std::uint64_t* eligible, Survivors out) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < points; ++i, rows += dim) {
    const Slot slot = first_slot + static_cast<Slot>(i);
    if (!is_eligible(eligible, slot)) continue;
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < dim; ++j) {
      const int d = (rows[j] ^ flip) - query[j];
      sum += d < 0 ? -d : d;
    }
    count = append_if(step * static_cast<float>(sum), threshold, slot, out, count);
  }
  return count;
}

std::size_t scan_hamming(const std::uint8_t* rows, std::size_t points, std::size_t bytes,
                         const std::uint8_t* query, float threshold, Slot first_slot,
                         const std::uint64_t* eligible, Survivors out) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < points; ++i, rows += bytes) {
    const Slot slot = first_slot + static_cast<Slot>(i);
    if (!is_eligible(eligible, slot)) continue;
    count = append_if(static_cast<float>(hamming(rows, query, bytes)), threshold, slot, out, count);
  }
  return count;
}

// ---- byte rows against a query in two planes --------------------------------------------------

// step * float(<row, 128 * high + low>)
template <class T>
inline float plane_dot(const T* row, std::size_t dim, const QueryPlanes& query) {
  std::int32_t high = 0;
  std::int32_t low = 0;
  for (std::size_t j = 0; j < dim; ++j) {
    high += row[j] * query.high[j];
    low += row[j] * query.low[j];
  }
  return query.step * static_cast<float>(128.0 * high + low);
}

template <class T>
inline void rerank(const T* rows, std::size_t row_stride, std::size_t dim, const QueryPlanes& query,
                   const RowScalars* scalars, const Slot* slots, std::size_t n, float* keys) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t slot = slots[i];
    const RowScalars s = scalars[slot];
    keys[i] = s.bias - s.mult * plane_dot(rows + slot * row_stride, dim, query);
  }
}

void rerank_i8(const std::int8_t* rows, std::size_t row_stride, std::size_t dim,
               const QueryPlanes& query, const RowScalars* scalars, const Slot* slots,
               std::size_t n, float* keys) {
  rerank(rows, row_stride, dim, query, scalars, slots, n, keys);
}

void rerank_u8(const std::uint8_t* rows, std::size_t row_stride, std::size_t dim,
               const QueryPlanes& query, const RowScalars* scalars, const Slot* slots,
               std::size_t n, float* keys) {
  rerank(rows, row_stride, dim, query, scalars, slots, n, keys);
}

void gather_codes(const std::uint8_t* records, std::size_t stride, const Slot* slots, std::size_t n,
                  std::size_t n_codes, std::uint8_t* block) {
  for (std::size_t m = 0; m < n_codes; ++m) {
    const auto code = [&](std::size_t i) {
      const std::uint8_t pair = records[std::size_t{slots[i < n ? i : n - 1]} * stride + m / 2];
      return static_cast<unsigned>(m % 2 == 0 ? pair & 15 : pair >> 4);
    };
    for (std::size_t j = 0; j < 16; ++j) {
      block[m * 16 + j] = static_cast<std::uint8_t>(code(j) | code(16 + j) << 4);
    }
  }
}

void rotate_i8(const std::int8_t* matrix, std::size_t n_rows, std::size_t row_stride,
               std::size_t dim, const QueryBytes& query, const float* row_scale, float* out) {
  for (std::size_t r = 0; r < n_rows; ++r) {
    std::int64_t dot = 0;
    for (std::size_t j = 0; j < dim; ++j) dot += matrix[r * row_stride + j] * query.values[j];
    out[r] = row_scale[r] * (query.step * static_cast<float>(dot));
  }
}

#include "kernels/tiles_scalar.inc"

#include "kernels/table.inc"

}  // namespace

constexpr Kernels kScalarKernels = make_table("scalar", crc32c_table);

}  // namespace annidx
