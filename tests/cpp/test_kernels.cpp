// test_kernels.cpp owns the proof that every kernel table this CPU can run keeps the contract
// of src_c/kernels/kernels.h: results equal, bit for bit, to the naive code below (and so to each
// other), no operand is read or written past its end, and the dispatcher picks what it says.
//
// Build and run, from the repository's root (the second build adds the sanitizers):
//   SOURCES="tests/cpp/test_kernels.cpp src_c/kernels/*.cpp"
//   FLAGS="-std=c++17 -ffp-contract=off -Wall -Wextra -Werror"
//   g++ $FLAGS -O3 $SOURCES -o /tmp/test_kernels && /tmp/test_kernels
//   SANITIZE="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
//   g++ $FLAGS $SANITIZE $SOURCES -o /tmp/test_kernels_san && /tmp/test_kernels_san
// Without the sanitizers buffers end at a page that cannot be read; with them they are exact heap
// blocks. On another architecture use its compiler and run under qemu.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/levels.h"

using namespace annidx;

namespace {

// ---- counting ---------------------------------------------------------------------------------

long g_passed = 0;
long g_failed = 0;
std::string g_table;

__attribute__((format(printf, 2, 3))) void check(bool ok, const char* format, ...) {
  constexpr long kMaxMessages = 40;
  if (ok) {
    ++g_passed;
    return;
  }
  if (++g_failed > kMaxMessages) return;
  std::printf("FAILED [%s] ", g_table.c_str());
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::printf("\n");
}

template <class Float>
bool same(Float a, Float b) {
  return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}

// ---- buffers that end where they say ----------------------------------------------------------

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kHeap = true;
#else
constexpr bool kHeap = false;
#endif

// n elements with nothing behind the last one.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t n) : n_(n) {
    if (kHeap) {
      data_ = static_cast<T*>(std::malloc(n * sizeof(T)));
      if (data_ == nullptr && n != 0) throw std::bad_alloc();
    } else {
      const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
      const std::size_t bytes = n * sizeof(T);
      mapped_ = (bytes + page - 1) / page * page + page;
      void* base =
          mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (base == MAP_FAILED) throw std::bad_alloc();
      base_ = static_cast<char*>(base);
      if (mprotect(base_ + mapped_ - page, page, PROT_NONE) != 0) throw std::bad_alloc();
      data_ = reinterpret_cast<T*>(base_ + mapped_ - page - bytes);
    }
  }
  ~Buffer() {
    if (kHeap) {
      std::free(data_);
    } else {
      munmap(base_, mapped_);
    }
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return n_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + n_; }

 private:
  std::size_t n_;
  T* data_ = nullptr;
  char* base_ = nullptr;
  std::size_t mapped_ = 0;
};

// ---- data -------------------------------------------------------------------------------------

std::uint64_t g_random = 88172645463325252u;

std::uint64_t random64() {
  g_random ^= g_random << 13;
  g_random ^= g_random >> 7;
  g_random ^= g_random << 17;
  return g_random;
}
std::size_t random_below(std::size_t n) { return static_cast<std::size_t>(random64() >> 11) % n; }
std::uint8_t random_byte() { return static_cast<std::uint8_t>(random64() >> 24); }

float float_from(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
std::uint32_t bits_from(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

enum class Data { ordinary, extreme, wild };
constexpr Data kAllData[] = {Data::ordinary, Data::extreme, Data::wild};

// ordinary: [-1, 1); extreme: finite, of every magnitude and sign of zero; wild: those and
// infinities and NaN.
float random_float(Data kind) {
  const float ordinary = static_cast<float>(random64() >> 40) * 0x1p-23f - 1.0f;
  if (kind == Data::ordinary) return ordinary;
  switch (random_below(kind == Data::wild ? 12 : 9)) {
    case 0: return 0.0f;
    case 1: return -0.0f;
    case 2: return float_from(static_cast<std::uint32_t>(random_below(0x800000)));  // subnormal
    case 3: return -std::numeric_limits<float>::max();
    case 4: return std::numeric_limits<float>::max();
    case 5: return ordinary * 1e30f;
    case 6: return ordinary * 1e-30f;
    case 9: return kInf;
    case 10: return -kInf;
    case 11: return kNan;
    default: return ordinary;
  }
}

void fill(Buffer<float>& b, Data kind) {
  for (float& x : b) x = random_float(kind);
}
template <class Byte>
void fill_bytes(Buffer<Byte>& b) {
  for (Byte& x : b) x = static_cast<Byte>(random_byte());
}
void fill_plane(Buffer<std::int8_t>& b, bool extreme) {
  for (std::int8_t& x : b) {
    x = static_cast<std::int8_t>(extreme ? (random_below(8) != 0 ? kPlaneMin : kPlaneMax)
                                         : static_cast<int>(random_below(128)) + kPlaneMin);
  }
}

const std::size_t kDims[] = {0,  1,  2,  3,  5,  7,   8,   9,   13,  15,  16,   17,  31,
                             32, 33, 63, 64, 65, 100, 127, 128, 129, 200, 1000, 4097};

// ---- naive half precision ---------------------------------------------------------------------

float naive_half_to_float(std::uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int mantissa = h & 1023;
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000) << 16;
  if (exponent == 31) {
    const std::uint32_t payload = static_cast<std::uint32_t>(mantissa) << 13;
    return float_from(sign | 0x7F800000u | payload | (mantissa != 0 ? 0x400000u : 0u));
  }
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return float_from(sign | bits_from(static_cast<float>(magnitude)));
}

std::uint16_t naive_float_to_half(float x) {
  const std::uint32_t bits = bits_from(x);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  if (std::isnan(x)) return static_cast<std::uint16_t>(sign | 0x7E00u | ((bits >> 13) & 0x3FFu));
  const double magnitude = std::fabs(static_cast<double>(x));
  if (magnitude >= 65520.0) return static_cast<std::uint16_t>(sign | 0x7C00u);
  // In units of the last place, which nearbyint rounds to even; a carry runs into the exponent.
  const int exponent = magnitude < 0x1p-14 ? -14 : std::ilogb(magnitude);
  const int places = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<std::uint16_t>(sign | (((exponent + 14) << 10) + places));
}

double naive_widen(float x) { return static_cast<double>(x); }
double naive_widen(std::uint16_t x) { return static_cast<double>(naive_half_to_float(x)); }
double naive_widen(std::int8_t x) { return x; }
double naive_widen(std::uint8_t x) { return x; }

// ---- exact distances --------------------------------------------------------------------------

template <class Float, std::size_t kLanes>
struct Lanes {
  Float sum[kLanes] = {};

  void add(std::size_t i, Float x) { sum[i % kLanes] += x; }
  Float total() {
    for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) sum[i] += sum[i + half];
    }
    return sum[0];
  }
};
using DoubleLanes = Lanes<double, 8>;
using FloatLanes = Lanes<float, 16>;

template <class T>
void test_exact(const char* type, double (*l2)(const float*, const T*, std::size_t),
                double (*l1)(const float*, const T*, std::size_t),
                DotSquare (*dot_square)(const float*, const T*, std::size_t),
                void (*fill_row)(Buffer<T>&, Data)) {
  for (std::size_t dim : kDims) {
    for (Data kind : kAllData) {
      Buffer<float> query(dim);
      Buffer<T> row(dim);
      fill(query, kind);
      fill_row(row, kind);
      DoubleLanes squares, magnitudes, dot, square;
      for (std::size_t i = 0; i < dim; ++i) {
        const double q = query[i];
        const double r = naive_widen(row[i]);
        squares.add(i, (q - r) * (q - r));
        magnitudes.add(i, std::fabs(q - r));
        dot.add(i, q * r);
        square.add(i, r * r);
      }
      const DotSquare got = dot_square(query.data(), row.data(), dim);
      check(same(l2(query.data(), row.data(), dim), squares.total()), "l2_squared_%s dim %zu", type,
            dim);
      check(same(l1(query.data(), row.data(), dim), magnitudes.total()), "l1_%s dim %zu", type,
            dim);
      check(same(got.dot, dot.total()) && same(got.square, square.total()), "dot_square_%s dim %zu",
            type, dim);
    }
  }
}

void fill_float_row(Buffer<float>& b, Data kind) { fill(b, kind); }
void fill_half_row(Buffer<std::uint16_t>& b, Data kind) {
  for (std::uint16_t& x : b) {
    x = static_cast<std::uint16_t>(random64() >> 20);
    if (kind != Data::wild && (x & 0x7C00u) == 0x7C00u) x = static_cast<std::uint16_t>(x ^ 0x4000u);
  }
}
void fill_i8_row(Buffer<std::int8_t>& b, Data) { fill_bytes(b); }
void fill_u8_row(Buffer<std::uint8_t>& b, Data) { fill_bytes(b); }

std::uint32_t naive_hamming(const std::uint8_t* a, const std::uint8_t* b, std::size_t bytes) {
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < 8 * bytes; ++i) {
    count += (((a[i / 8] ^ b[i / 8]) >> (i % 8)) & 1) != 0 ? 1u : 0u;
  }
  return count;
}

void test_distances(const Kernels& k) {
  test_exact<float>("f32", k.l2_squared_f32, k.l1_f32, k.dot_square_f32, fill_float_row);
  test_exact<std::uint16_t>("f16", k.l2_squared_f16, k.l1_f16, k.dot_square_f16, fill_half_row);
  test_exact<std::int8_t>("i8", k.l2_squared_i8, k.l1_i8, k.dot_square_i8, fill_i8_row);
  test_exact<std::uint8_t>("u8", k.l2_squared_u8, k.l1_u8, k.dot_square_u8, fill_u8_row);
  for (std::size_t bytes : kDims) {
    Buffer<std::uint8_t> a(bytes);
    Buffer<std::uint8_t> b(bytes);
    fill_bytes(a);
    fill_bytes(b);
    check(k.hamming(a.data(), b.data(), bytes) == naive_hamming(a.data(), b.data(), bytes),
          "hamming bytes %zu", bytes);
  }
}

// ---- building ---------------------------------------------------------------------------------

void test_building(const Kernels& k) {
  for (std::size_t dim : kDims) {
    for (Data kind : kAllData) {
      Buffer<float> a(dim);
      Buffer<float> b(dim);
      Buffer<float> y(dim);
      fill(a, kind);
      fill(b, kind);
      fill(y, kind);
      FloatLanes dot, square;
      for (std::size_t i = 0; i < dim; ++i) {
        dot.add(i, a[i] * b[i]);
        square.add(i, (a[i] - b[i]) * (a[i] - b[i]));
      }
      check(same(k.dot_f32(a.data(), b.data(), dim), dot.total()), "dot_f32 dim %zu", dim);
      check(same(k.l2_squared_build_f32(a.data(), b.data(), dim), square.total()),
            "l2_squared_build_f32 dim %zu", dim);
      const float factor = random_float(kind);
      std::vector<float> expected(y.begin(), y.end());
      for (std::size_t i = 0; i < dim; ++i) expected[i] += factor * a[i];
      k.axpy(factor, a.data(), y.data(), dim);
      bool ok = true;
      for (std::size_t i = 0; i < dim; ++i) ok = ok && same(y[i], expected[i]);
      check(ok, "axpy n %zu", dim);
    }
  }
}

void test_panel_dot(const Kernels& k) {
  for (std::size_t dim : kDims) {
    for (std::size_t n_rows : {0, 1, 2, 3, 7, 12, 13, 29}) {
      if (dim * n_rows > 20000 && n_rows != 13) continue;
      const Data kind = kAllData[random_below(3)];
      const std::size_t row_stride = dim + random_below(4);
      const std::size_t out_stride = kPanelWidth + random_below(4);
      const std::size_t last = n_rows == 0 ? 0 : n_rows - 1;
      Buffer<float> rows(n_rows == 0 ? 0 : last * row_stride + dim);
      Buffer<float> panel(dim * kPanelWidth);
      Buffer<float> out(n_rows == 0 ? 0 : last * out_stride + kPanelWidth);
      fill(rows, kind);
      fill(panel, kind);
      fill(out, Data::ordinary);
      std::vector<float> expected(out.begin(), out.end());
      for (std::size_t r = 0; r < n_rows; ++r) {
        for (std::size_t c = 0; c < kPanelWidth; ++c) {
          float sum = 0.0f;
          for (std::size_t j = 0; j < dim; ++j) {
            sum += rows[r * row_stride + j] * panel[j * kPanelWidth + c];
          }
          expected[r * out_stride + c] = sum;
        }
      }
      k.panel_dot(rows.data(), n_rows, row_stride, panel.data(), dim, out.data(), out_stride);
      bool ok = true;
      for (std::size_t i = 0; i < out.size(); ++i) ok = ok && same(out[i], expected[i]);
      check(ok, "panel_dot rows %zu dim %zu", n_rows, dim);
    }
  }
}

// ---- conversions ------------------------------------------------------------------------------

void test_conversions(const Kernels& k) {
  Buffer<std::uint16_t> halves(65536);
  Buffer<float> floats(65536);
  for (std::size_t i = 0; i < 65536; ++i) halves[i] = static_cast<std::uint16_t>(i);
  k.f16_to_f32(halves.data(), floats.data(), 65536);
  for (std::size_t i = 0; i < 65536; ++i) {
    const float expected = naive_half_to_float(halves[i]);
    check(bits_from(floats[i]) == bits_from(expected), "f16_to_f32 %zx", i);
  }
  // Around every half and every midpoint between two, and anything.
  std::vector<std::uint32_t> patterns;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const std::uint32_t bits = bits_from(floats[i]);
    for (std::uint32_t away : {0u, 1u, 0xFFFu, 0x1000u, 0x1001u}) patterns.push_back(bits + away);
    patterns.push_back(bits - 1);
    patterns.push_back(static_cast<std::uint32_t>(random64() >> 16));
    patterns.push_back(0x33000000u + static_cast<std::uint32_t>(random_below(0x06000000)));
  }
  Buffer<float> in(patterns.size());
  Buffer<std::uint16_t> out(patterns.size());
  std::memcpy(in.data(), patterns.data(), patterns.size() * sizeof(float));
  k.f32_to_f16(in.data(), out.data(), in.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    check(out[i] == naive_float_to_half(in[i]), "f32_to_f16 %x", patterns[i]);
  }
  for (std::size_t n : kDims) {
    Buffer<std::uint16_t> h(n);
    Buffer<float> f(n);
    Buffer<std::uint16_t> back(n);
    Buffer<std::int8_t> i8(n);
    Buffer<std::uint8_t> u8(n);
    Buffer<std::uint8_t> bits((n + 7) / 8);
    fill_half_row(h, Data::extreme);
    fill_bytes(i8);
    fill_bytes(u8);
    fill_bytes(bits);
    bool ok = true;
    k.f16_to_f32(h.data(), f.data(), n);
    k.f32_to_f16(f.data(), back.data(), n);
    for (std::size_t i = 0; i < n; ++i) ok = ok && back[i] == h[i];
    check(ok, "f16 round trip n %zu", n);
    k.i8_to_f32(i8.data(), f.data(), n);
    for (std::size_t i = 0; i < n; ++i) ok = ok && f[i] == static_cast<float>(i8[i]);
    check(ok, "i8_to_f32 n %zu", n);
    k.u8_to_f32(u8.data(), f.data(), n);
    for (std::size_t i = 0; i < n; ++i) ok = ok && f[i] == static_cast<float>(u8[i]);
    check(ok, "u8_to_f32 n %zu", n);
    k.bits_to_f32(bits.data(), f.data(), n);
    for (std::size_t i = 0; i < n; ++i) {
      ok = ok && same(f[i], static_cast<float>((bits[i / 8] >> (7 - i % 8)) & 1));
    }
    check(ok, "bits_to_f32 n %zu", n);
  }
}

void test_finite(const Kernels& k) {
  for (std::size_t n : kDims) {
    Buffer<float> in(n);
    fill(in, Data::extreme);
    float most = 0.0f;
    for (float x : in) most = std::max(most, std::fabs(x));
    check(same(k.max_abs(in.data(), n), most), "max_abs n %zu", n);
    check(k.first_nonfinite(in.data(), n) == n, "first_nonfinite none n %zu", n);
    for (int repeat = 0; repeat < 8 && n > 0; ++repeat) {
      const std::size_t at = random_below(n);
      const float kept = in[at];
      in[at] = repeat % 3 == 0 ? kNan : (repeat % 3 == 1 ? kInf : -kInf);
      check(k.first_nonfinite(in.data(), n) == at, "first_nonfinite n %zu at %zu", n, at);
      in[at] = kept;
    }
  }
}

// ---- routing ----------------------------------------------------------------------------------

void test_route(const Kernels& k) {
  for (std::size_t dim : kDims) {
    const std::size_t dim4 = (dim + 3) / 4 * 4;
    if (dim4 == 0) continue;
    for (std::size_t n_blocks : {0, 1, 2, 3, 4, 5, 9}) {
      if (dim4 * n_blocks > 5000 && n_blocks != 5) continue;
      const Data kind = kAllData[random_below(3)];
      const bool extreme = kind != Data::ordinary;
      const std::size_t n = n_blocks * kPanelWidth;
      Buffer<std::uint8_t> centroids(n * dim4);
      Buffer<std::int8_t> query(dim4);
      Buffer<float> mult(n);
      Buffer<float> bias(n);
      Buffer<float> out(n);
      fill_bytes(centroids);
      if (extreme) {
        for (std::uint8_t& c : centroids) c = random_below(8) != 0 ? 255 : 0;
      }
      fill_plane(query, extreme);
      fill(mult, kind);
      fill(bias, kind);
      std::int32_t query_sum = 0;
      for (std::int8_t q : query) query_sum += q;
      const float step = random_float(Data::ordinary);
      k.route_scores(centroids.data(), n_blocks, dim4, query.data(), query_sum, step, mult.data(),
                     bias.data(), out.data());
      bool ok = true;
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint8_t* block = centroids.data() + i / kPanelWidth * kPanelWidth * dim4;
        std::int64_t dot = 0;
        for (std::size_t j = 0; j < dim4; ++j) {
          const int centroid = block[j / 4 * 64 + i % kPanelWidth * 4 + j % 4] - 128;
          dot += centroid * query[j];
        }
        ok = ok && same(out[i], bias[i] - mult[i] * (step * static_cast<float>(dot)));
      }
      check(ok, "route_scores dim4 %zu blocks %zu", dim4, n_blocks);
    }
  }
}

// ---- survivors --------------------------------------------------------------------------------

struct Expected {
  std::vector<float> scores;
  std::vector<Slot> slots;

  void offer(float score, float threshold, Slot slot) {
    if (!(score <= threshold)) return;
    scores.push_back(score);
    slots.push_back(slot);
  }
  bool equals(std::size_t n, const Buffer<float>& got_scores, const Buffer<Slot>& got_slots) const {
    if (n != scores.size()) return false;
    for (std::size_t i = 0; i < n; ++i) {
      if (!same(got_scores[i], scores[i]) || got_slots[i] != slots[i]) return false;
    }
    return true;
  }
};

// A threshold that some of the scores pass, or one that all, none or only some infinities do.
float some_threshold(std::vector<float> scores, std::size_t which) {
  scores.erase(std::remove_if(scores.begin(), scores.end(), [](float x) { return std::isnan(x); }),
               scores.end());
  switch (which) {
    case 0: return kInf;
    case 1: return -kInf;
    case 2: return kNan;
    case 3: return 0.0f;
    default: break;
  }
  if (scores.empty()) return 0.0f;
  std::sort(scores.begin(), scores.end());
  return scores[which == 4 ? scores.size() / 20 : random_below(scores.size())];
}
constexpr std::size_t kThresholds = 6;

void test_select(const Kernels& k) {
  for (std::size_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 255}) {
    for (Data kind : kAllData) {
      for (std::size_t which = 0; which < kThresholds; ++which) {
        Buffer<float> scores(n);
        Buffer<float> out_scores(n + 16);
        Buffer<Slot> out_slots(n + 16);
        fill(scores, kind);
        const float threshold = some_threshold({scores.begin(), scores.end()}, which);
        const Slot base = static_cast<Slot>(random64());
        Expected expected;
        for (std::size_t i = 0; i < n; ++i) {
          expected.offer(scores[i], threshold, base + static_cast<Slot>(i));
        }
        const std::size_t count = k.select_at_most(scores.data(), n, threshold, base,
                                                   {out_scores.data(), out_slots.data()});
        check(expected.equals(count, out_scores, out_slots), "select_at_most n %zu threshold %g", n,
              static_cast<double>(threshold));
      }
    }
  }
}

void test_compact(const Kernels& k) {
  for (std::size_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 255}) {
    for (Data kind : kAllData) {
      for (std::size_t which = 0; which < kThresholds; ++which) {
        Buffer<float> scores(n);
        Buffer<Slot> slots(n);
        fill(scores, kind);
        for (Slot& slot : slots) slot = static_cast<Slot>(random64());
        const float threshold = some_threshold({scores.begin(), scores.end()}, which);
        Expected expected;
        for (std::size_t i = 0; i < n; ++i) expected.offer(scores[i], threshold, slots[i]);
        const std::size_t kept = k.compact_at_most(scores.data(), slots.data(), n, threshold);
        check(expected.equals(kept, scores, slots), "compact_at_most n %zu threshold %g", n,
              static_cast<double>(threshold));
      }
    }
  }
}

void test_near_bound(const Kernels& k) {
  for (std::size_t n : {1, 2, 3, 15, 16, 17, 100, 1000}) {
    for (Data kind : kAllData) {
      for (int repeat = 0; repeat < 8; ++repeat) {
        Buffer<float> scores(n);
        fill(scores, kind);
        for (float& x : scores) {  // NaN has two signs
          if (std::isnan(x) && random_below(2) != 0) x = std::copysign(x, -1.0f);
        }
        const std::size_t keep = 1 + random_below(n);
        const float bound = k.near_bound(scores.data(), n, keep);
        check(same(bound, kScalarKernels.near_bound(scores.data(), n, keep)),
              "near_bound differs from scalar, n %zu keep %zu", n, keep);
        std::reverse(scores.begin(), scores.end());
        check(same(bound, k.near_bound(scores.data(), n, keep)),
              "near_bound depends on the order, n %zu keep %zu", n, keep);
        std::size_t within = 0;
        std::size_t finite = 0;
        std::size_t below_infinity = 0;
        for (float x : scores) {
          within += x <= bound ? 1 : 0;
          finite += std::isfinite(x) ? 1 : 0;
          below_infinity += x < kInf ? 1 : 0;
        }
        if (finite == 0 || below_infinity < keep) {
          check(bound == kInf, "near_bound %g of too few, n %zu keep %zu",
                static_cast<double>(bound), n, keep);
        } else {
          check(std::isfinite(bound) && within >= keep, "near_bound %g, n %zu keep %zu",
                static_cast<double>(bound), n, keep);
        }
        if (kind == Data::ordinary) {
          check(within <= keep + keep / 8 + 4, "near_bound loose: %zu, n %zu keep %zu", within, n,
                keep);
        }
      }
    }
  }
}

void test_sort_scores(const Kernels& k) {
  for (std::size_t n : {0, 1, 2, 15, 16, 17, 100, 511, 512}) {
    for (Data kind : kAllData) {
      Buffer<float> scores(n);
      fill(scores, kind);
      if (n > 8) scores[n / 2] = scores[1] = scores[n - 1];
      Buffer<std::uint32_t> sorted(n);
      k.sort_scores(scores.data(), n, sorted.data());
      std::vector<std::uint32_t> expected(n);
      std::iota(expected.begin(), expected.end(), 0);
      std::stable_sort(expected.begin(), expected.end(), [&](std::uint32_t a, std::uint32_t b) {
        if (std::isnan(scores[b])) return !std::isnan(scores[a]);
        if (scores[a] == scores[b]) return std::signbit(scores[a]) && !std::signbit(scores[b]);
        return scores[a] < scores[b];
      });
      check(std::equal(expected.begin(), expected.end(), sorted.begin()), "sort_scores, n %zu", n);
    }
  }
}

// The bits of slots [first, first + points), in exactly the words that a scan may read, with
// the pointer moved back so that it can be indexed by slot; or all slots, as nullptr.
class Eligible {
 public:
  Eligible(std::size_t first, std::size_t points, int kind)
      : first_word_(first / 64), words_((first + points + 63) / 64 - first / 64), all_(kind == 0) {
    for (std::uint64_t& word : words_) {
      word = kind == 1 ? random64() : (kind == 2 ? 0 : random64() & random64() & random64());
    }
  }
  const std::uint64_t* pointer() const {
    if (all_) return nullptr;
    return reinterpret_cast<const std::uint64_t*>(reinterpret_cast<std::uintptr_t>(words_.data()) -
                                                  first_word_ * sizeof(std::uint64_t));
  }
  bool has(std::size_t slot) const {
    return all_ || ((words_[slot / 64 - first_word_] >> (slot % 64)) & 1) != 0;
  }

 private:
  std::size_t first_word_;
  Buffer<std::uint64_t> words_;
  bool all_;
};
constexpr int kEligibleKinds = 4;

const std::size_t kFirstSlots[] = {0, 1, 5, 31, 33, 63, 64, 1000, 4294967000u};

using ScanCodes = decltype(Kernels::scan_codes_additive);

// The score of a point by the contract: `block` is its block, `lane` its place there.
float code_score(const std::uint8_t* block, std::size_t lane, std::size_t n_codes,
                 const std::uint8_t* luts, float base, float step, bool multiplicative) {
  std::uint32_t sum = 0;
  for (std::size_t m = 0; m < n_codes; ++m) {
    const std::uint8_t pair = block[m * 16 + lane % 16];
    sum += luts[m * kCodewords + (lane < 16 ? pair & 15 : pair >> 4)];
  }
  float scalar;
  std::memcpy(&scalar, block + n_codes * 16 + lane * sizeof(float), sizeof(float));
  const float a = base + step * static_cast<float>(sum);
  return multiplicative ? a * scalar : a + scalar;
}

// Runs of `points` each that are spread over some blocks, their slots from first_slot on.
std::vector<CodeRun> random_runs(std::size_t n_runs, std::size_t points, std::size_t n_blocks,
                                 std::size_t first_slot, Data scores) {
  const std::size_t own_blocks = (points + kBlockPoints - 1) / kBlockPoints;
  std::vector<CodeRun> runs;
  for (std::size_t r = 0; r < n_runs; ++r) {
    runs.push_back({static_cast<std::uint32_t>(random_below(n_blocks - own_blocks + 1)),
                    static_cast<Slot>(first_slot + r * points), static_cast<std::uint32_t>(points),
                    random_float(scores)});
  }
  return runs;
}

void test_scan_codes(const char* name, ScanCodes scan, bool multiplicative) {
  constexpr std::size_t kBlocks = 9;
  for (std::size_t n_codes : {4, 8, 12, 16, 32, 60, 64, 128, 256}) {
    for (std::size_t points : {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 200, 257}) {
      for (std::size_t n_runs : {1, 2, 3, 7}) {
        const std::size_t block_bytes = code_block_bytes(n_codes);
        Buffer<std::uint8_t> blocks(kBlocks * block_bytes);
        Buffer<std::uint8_t> luts(n_codes * kCodewords);
        fill_bytes(blocks);
        fill_bytes(luts);
        const bool extreme = n_runs == 2;
        if (n_runs == 3) std::fill(luts.begin(), luts.end(), std::uint8_t{255});
        Buffer<float> scalars(kBlockPoints);
        for (std::size_t b = 0; b < kBlocks; ++b) {
          fill(scalars, kAllData[random_below(3)]);
          std::memcpy(blocks.data() + b * block_bytes + n_codes * 16, scalars.data(),
                      kBlockPoints * sizeof(float));
        }
        const float step = random_float(extreme ? Data::extreme : Data::ordinary) * 0.01f;
        const std::size_t first_slot = kFirstSlots[random_below(std::size(kFirstSlots) - 1)];
        const std::vector<CodeRun> runs = random_runs(n_runs, points, kBlocks, first_slot,
                                                      extreme ? Data::extreme : Data::ordinary);
        std::vector<float> scores;
        for (const CodeRun& run : runs) {
          for (std::size_t i = 0; i < points; ++i) {
            const std::uint8_t* block =
                blocks.data() + (run.first_block + i / kBlockPoints) * block_bytes;
            scores.push_back(code_score(block, i % kBlockPoints, n_codes, luts.data(), run.score,
                                        step, multiplicative));
          }
        }
        for (std::size_t which = 0; which < kThresholds; ++which) {
          const Eligible eligible(first_slot, n_runs * points,
                                  static_cast<int>(random_below(kEligibleKinds)));
          const float threshold = some_threshold(scores, which);
          Expected expected;
          for (std::size_t i = 0; i < scores.size(); ++i) {
            if (!eligible.has(first_slot + i)) continue;
            expected.offer(scores[i], threshold, static_cast<Slot>(first_slot + i));
          }
          const std::size_t room = n_runs * ((points + 31) / 32 * 32) + 16;
          Buffer<float> out_scores(room);
          Buffer<Slot> out_slots(room);
          const std::size_t count =
              scan(blocks.data(), n_codes, runs.data(), n_runs, luts.data(), step, threshold,
                   eligible.pointer(), {out_scores.data(), out_slots.data()});
          check(expected.equals(count, out_scores, out_slots),
                "%s codes %zu points %zu runs %zu first %zu threshold %g", name, n_codes, points,
                n_runs, first_slot, static_cast<double>(threshold));
        }
      }
    }
  }
}

// ---- tables and encoding ----------------------------------------------------------------------

// Group boundaries for n_codes sub-quantizers, some of them empty.
std::vector<std::uint16_t> random_groups(std::size_t n_codes) {
  std::vector<std::uint16_t> first_dim(n_codes + 1);
  for (std::size_t m = 0; m < n_codes; ++m) {
    first_dim[m + 1] = static_cast<std::uint16_t>(first_dim[m] + random_below(9));
  }
  return first_dim;
}

void test_gather_codes(const Kernels& k) {
  for (std::size_t n_codes : {4, 8, 12, 16, 28, 32, 36, 60, 64, 128, 256}) {
    const std::size_t bytes = n_codes / 2;
    for (std::size_t spare : {std::size_t{0}, std::size_t{8}, std::size_t{40}}) {
      const std::size_t stride = (bytes + 15) / 16 * 16 + spare;
      constexpr std::size_t kRecords = 50;
      Buffer<std::uint8_t> records(kRecords * stride);
      fill_bytes(records);
      for (std::size_t n = 1; n <= kBlockPoints; ++n) {
        Buffer<Slot> slots(n);
        for (Slot& slot : slots) slot = static_cast<Slot>(random_below(kRecords));
        if (n > 1) slots[0] = kRecords - 1;
        Buffer<std::uint8_t> block(n_codes * 16);
        k.gather_codes(records.data(), stride, slots.data(), n, n_codes, block.data());
        bool ok = true;
        for (std::size_t m = 0; m < n_codes; ++m) {
          for (std::size_t j = 0; j < kBlockPoints; ++j) {
            const std::uint8_t pair = records[slots[j < n ? j : n - 1] * stride + m / 2];
            const int expected = m % 2 == 0 ? pair & 15 : pair >> 4;
            const std::uint8_t got = block[m * 16 + j % 16];
            ok = ok && (j < 16 ? got & 15 : got >> 4) == expected;
          }
        }
        check(ok, "gather_codes, %zu codes, stride %zu, n %zu", n_codes, stride, n);
      }
    }
  }
}

void test_luts(const Kernels& k) {
  for (std::size_t n_codes : {1, 2, 4, 15, 16, 17, 32, 33, 64, 256}) {
    for (int repeat = 0; repeat < 12; ++repeat) {
      const Data kind = kAllData[repeat % 3];
      const std::vector<std::uint16_t> groups = random_groups(n_codes);
      Buffer<std::uint16_t> first_dim(groups.size());
      std::copy(groups.begin(), groups.end(), first_dim.begin());
      const std::size_t dim = groups.back();
      Buffer<float> query(dim);
      Buffer<float> codebook(dim * kCodewords);
      Buffer<float> tables(n_codes * kCodewords);
      fill(query, kind);
      fill(codebook, kind);
      if (repeat == 3) std::fill(query.begin(), query.end(), 0.0f);
      if (repeat == 6) {
        for (float& x : query) x *= 1e-42f;
      }
      k.lut_floats(query.data(), codebook.data(), first_dim.data(), n_codes, tables.data());
      bool ok = true;
      for (std::size_t m = 0; m < n_codes; ++m) {
        for (std::size_t c = 0; c < kCodewords; ++c) {
          float sum = 0.0f;
          for (std::size_t j = groups[m]; j < groups[m + 1]; ++j) {
            sum += query[j] * codebook[j * kCodewords + c];
          }
          ok = ok && same(tables[m * kCodewords + c], sum);
        }
      }
      check(ok, "lut_floats codes %zu", n_codes);

      Buffer<std::uint8_t> luts(n_codes * kCodewords);
      float base = 1.0f;
      const float step = k.lut_quantize(tables.data(), n_codes, luts.data(), &base);
      std::vector<float> low(n_codes);
      float range = 0.0f;
      float expected_base = 0.0f;
      for (std::size_t m = 0; m < n_codes; ++m) {
        float high = -kInf;
        low[m] = kInf;
        for (std::size_t c = 0; c < kCodewords; ++c) {
          const float t = tables[m * kCodewords + c];
          if (t < low[m]) low[m] = t;
          if (t > high) high = t;
        }
        if (high - low[m] > range) range = high - low[m];
        expected_base += low[m];
      }
      const float expected_step = range / 255.0f == 0.0f ? 1.0f : range / 255.0f;
      check(same(step, expected_step) && same(base, expected_base), "lut_quantize step codes %zu",
            n_codes);
      const float scale = 1.0f / expected_step;
      for (std::size_t i = 0; i < luts.size(); ++i) {
        const float level = (tables[i] - low[i / kCodewords]) * scale + 0.5f;
        const int expected = level < 255.0f ? static_cast<int>(level) : 255;
        ok = ok && luts[i] == expected;
      }
      check(ok, "lut_quantize codes %zu", n_codes);
    }
  }
}

void test_encode(const Kernels& k) {
  for (std::size_t n_codes : {1, 2, 4, 5, 32, 64}) {
    for (std::size_t n_rows : {0, 1, 2, 3, 4, 5, 8, 11}) {
      for (Data kind : kAllData) {
        const std::vector<std::uint16_t> groups = random_groups(n_codes);
        Buffer<std::uint16_t> first_dim(groups.size());
        std::copy(groups.begin(), groups.end(), first_dim.begin());
        const std::size_t dim = groups.back();
        const std::size_t stride = dim + random_below(3);
        Buffer<float> rows(n_rows == 0 ? 0 : (n_rows - 1) * stride + dim);
        Buffer<float> codebook(dim * kCodewords);
        Buffer<float> half_squares(n_codes * kCodewords);
        Buffer<std::uint8_t> out(n_rows * n_codes);
        fill(rows, kind);
        fill(codebook, kind);
        fill(half_squares, kind);
        for (float& x : codebook) {  // few different values: ties
          if (kind == Data::ordinary) x = std::round(x);
        }
        for (float& x : half_squares) {
          if (kind == Data::ordinary) x = std::round(x);
        }
        k.encode(rows.data(), n_rows, stride, codebook.data(), half_squares.data(),
                 first_dim.data(), n_codes, out.data());
        bool ok = true;
        for (std::size_t i = 0; i < out.size(); ++i) {
          const std::size_t r = i / n_codes;
          const std::size_t m = i % n_codes;
          float least = kInf;
          std::size_t best = 0;
          for (std::size_t c = 0; c < kCodewords; ++c) {
            float sum = 0.0f;
            for (std::size_t j = groups[m]; j < groups[m + 1]; ++j) {
              sum += rows[r * stride + j] * codebook[j * kCodewords + c];
            }
            const float value = half_squares[m * kCodewords + c] - sum;
            if (value < least) {
              least = value;
              best = c;
            }
          }
          ok = ok && out[i] == best;
        }
        check(ok, "encode rows %zu codes %zu", n_rows, n_codes);
      }
    }
  }
}

// ---- byte rows --------------------------------------------------------------------------------

struct TestPlanes {
  Buffer<std::int8_t> high;
  Buffer<std::int8_t> low;
  QueryPlanes planes;

  TestPlanes(std::size_t dim, bool extreme) : high(dim), low(dim), planes{} {
    fill_plane(high, extreme);
    fill_plane(low, extreme);
    planes.high = high.data();
    planes.low = low.data();
    for (std::int8_t x : high) planes.high_sum += x;
    for (std::int8_t x : low) planes.low_sum += x;
    planes.step = random_float(Data::ordinary);
  }
  template <class T>
  float naive_dot(const T* row) const {
    std::int64_t dot = 0;
    for (std::size_t j = 0; j < high.size(); ++j) dot += row[j] * (128 * high[j] + low[j]);
    return planes.step * static_cast<float>(static_cast<double>(dot));
  }
};

template <class T>
void fill_rows(Buffer<T>& rows, bool extreme) {
  fill_bytes(rows);
  if (!extreme) return;
  for (T& x : rows) {
    x = random_below(8) != 0 ? std::numeric_limits<T>::min() : std::numeric_limits<T>::max();
  }
}

template <class T>
void test_rerank(const char* name,
                 void (*rerank)(const T*, std::size_t, std::size_t, const QueryPlanes&,
                                const RowScalars*, const Slot*, std::size_t, float*)) {
  for (std::size_t dim : kDims) {
    if (dim == 0) continue;
    for (std::size_t n : {0, 1, 2, 3, 4, 5, 16, 17, 50}) {
      if (dim * n > 30000) continue;
      const bool extreme = random_below(2) != 0;
      const std::size_t stride = dim + random_below(3);
      const std::size_t n_rows = 23;
      Buffer<T> rows((n_rows - 1) * stride + dim);
      Buffer<RowScalars> scalars(n_rows);
      Buffer<Slot> slots(n);
      Buffer<float> keys(n);
      fill_rows(rows, extreme);
      for (RowScalars& s : scalars) s = {random_float(Data::extreme), random_float(Data::wild)};
      for (Slot& slot : slots) slot = static_cast<Slot>(random_below(n_rows));
      if (n > 0) slots[n - 1] = n_rows - 1;
      const TestPlanes query(dim, extreme);
      rerank(rows.data(), stride, dim, query.planes, scalars.data(), slots.data(), n, keys.data());
      bool ok = true;
      for (std::size_t i = 0; i < n; ++i) {
        const RowScalars s = scalars[slots[i]];
        const float dot = query.naive_dot(rows.data() + slots[i] * stride);
        ok = ok && same(keys[i], s.bias - s.mult * dot);
      }
      check(ok, "%s dim %zu n %zu", name, dim, n);
    }
  }
}

// The largest sums there can be must not overflow.
template <class T>
void test_rerank_limits(const char* name,
                        void (*rerank)(const T*, std::size_t, std::size_t, const QueryPlanes&,
                                       const RowScalars*, const Slot*, std::size_t, float*)) {
  for (T value : {std::numeric_limits<T>::min(), std::numeric_limits<T>::max()}) {
    for (int plane : {kPlaneMin, kPlaneMax}) {
      Buffer<T> row(kMaxDim);
      std::fill(row.begin(), row.end(), value);
      TestPlanes query(kMaxDim, true);
      std::fill(query.high.begin(), query.high.end(), static_cast<std::int8_t>(plane));
      std::fill(query.low.begin(), query.low.end(), static_cast<std::int8_t>(plane));
      query.planes.high_sum = query.planes.low_sum = plane * static_cast<int>(kMaxDim);
      const RowScalars scalars{-1.0f, 0.0f};
      const Slot slot = 0;
      float key = 0.0f;
      rerank(row.data(), kMaxDim, kMaxDim, query.planes, &scalars, &slot, 1, &key);
      check(same(key, 0.0f + query.naive_dot(row.data())), "%s limit %d * %d", name, value, plane);
    }
  }
}

void test_rotate(const Kernels& k) {
  for (std::size_t dim : kDims) {
    if (dim == 0) continue;
    for (std::size_t n_rows : {0, 1, 2, 3, 4, 5, 9, 16}) {
      const bool extreme = random_below(2) != 0;
      const std::size_t stride = dim + random_below(3);
      Buffer<std::int8_t> matrix(n_rows == 0 ? 0 : (n_rows - 1) * stride + dim);
      Buffer<float> scale(n_rows);
      Buffer<float> out(n_rows);
      fill_rows(matrix, extreme);
      fill(scale, Data::extreme);
      Buffer<std::int8_t> values(dim);
      fill_plane(values, extreme);
      const QueryBytes query{values.data(), std::accumulate(values.begin(), values.end(), 0),
                             random_float(Data::ordinary)};
      k.rotate_i8(matrix.data(), n_rows, stride, dim, query, scale.data(), out.data());
      bool ok = true;
      for (std::size_t r = 0; r < n_rows; ++r) {
        std::int64_t dot = 0;
        for (std::size_t j = 0; j < dim; ++j) dot += matrix[r * stride + j] * values[j];
        ok = ok && same(out[r], scale[r] * (query.step * static_cast<float>(dot)));
      }
      check(ok, "rotate_i8 dim %zu rows %zu", dim, n_rows);
    }
  }
}

template <class Scan>
void test_scan_rows(const char* name, const std::vector<float>& scores, const Scan& scan,
                    std::size_t bytes) {
  const std::size_t points = scores.size();
  for (std::size_t which = 0; which < kThresholds; ++which) {
    const std::size_t first_slot = kFirstSlots[random_below(std::size(kFirstSlots))];
    const Eligible eligible(first_slot, points, static_cast<int>(random_below(kEligibleKinds)));
    const float threshold = some_threshold(scores, which);
    Expected expected;
    for (std::size_t i = 0; i < points; ++i) {
      if (!eligible.has(first_slot + i)) continue;
      expected.offer(scores[i], threshold, static_cast<Slot>(first_slot + i));
    }
    const std::size_t room = (points + kBlockPoints - 1) / kBlockPoints * kBlockPoints + 16;
    Buffer<float> out_scores(room);
    Buffer<Slot> out_slots(room);
    const std::size_t count = scan(threshold, static_cast<Slot>(first_slot), eligible.pointer(),
                                   Survivors{out_scores.data(), out_slots.data()});
    check(expected.equals(count, out_scores, out_slots), "%s bytes %zu points %zu", name, bytes,
          points);
  }
}

void test_row_scans(const Kernels& k) {
  std::vector<std::size_t> sizes(std::begin(kDims) + 1, std::end(kDims));
  sizes.push_back(8192);
  for (std::size_t bytes : sizes) {
    for (std::size_t points : {1, 2, 15, 16, 17, 31, 32, 33, 70}) {
      if (bytes * points > 70000 && points != 17) continue;
      Buffer<std::uint8_t> rows(points * bytes);
      Buffer<std::uint8_t> query(bytes);
      fill_bytes(rows);
      fill_bytes(query);
      std::vector<float> scores(points);
      if (points == 17) {  // the farthest row there is
        for (std::size_t j = 0; j < bytes; ++j) {
          rows[3 * bytes + j] = static_cast<std::uint8_t>(~query[j]);
        }
      }
      for (std::size_t i = 0; i < points; ++i) {
        scores[i] = static_cast<float>(naive_hamming(rows.data() + i * bytes, query.data(), bytes));
      }
      test_scan_rows(
          "scan_hamming", scores,
          [&](float threshold, Slot first, const std::uint64_t* eligible, Survivors out) {
            return k.scan_hamming(rows.data(), points, bytes, query.data(), threshold, first,
                                  eligible, out);
          },
          bytes);
      const std::uint8_t flip = random_below(2) != 0 ? 0x80 : 0;
      const float step = random_float(Data::ordinary);
      if (points == 17) {
        for (std::size_t j = 0; j < bytes; ++j) {
          query[j] = 0;
          rows[3 * bytes + j] = static_cast<std::uint8_t>(255 ^ flip);
        }
      }
      for (std::size_t i = 0; i < points; ++i) {
        std::int64_t sum = 0;
        for (std::size_t j = 0; j < bytes; ++j) {
          sum += std::abs((rows[i * bytes + j] ^ flip) - query[j]);
        }
        scores[i] = step * static_cast<float>(sum);
      }
      test_scan_rows(
          "scan_l1_u8", scores,
          [&](float threshold, Slot first, const std::uint64_t* eligible, Survivors out) {
            return k.scan_l1_u8(rows.data(), points, bytes, flip, query.data(), step, threshold,
                                first, eligible, out);
          },
          bytes);
    }
  }
}

// ---- checksums, dispatch ----------------------------------------------------------------------

std::uint32_t naive_crc32c(std::uint32_t crc, const std::uint8_t* p, std::size_t bytes) {
  crc = ~crc;
  for (std::size_t i = 0; i < bytes; ++i) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
  }
  return ~crc;
}

void test_crc(const Kernels& k) {
  check(k.crc32c(0, "123456789", 9) == 0xE3069283u, "crc32c of the standard's example");
  for (std::size_t bytes : {0, 1, 7, 8, 9, 100, 4097, 6143, 6144, 6145, 12288, 20001}) {
    Buffer<std::uint8_t> data(bytes);
    fill_bytes(data);
    const std::uint32_t expected = naive_crc32c(0, data.data(), bytes);
    check(k.crc32c(0, data.data(), bytes) == expected, "crc32c bytes %zu", bytes);
    const std::size_t cut = random_below(bytes + 1);
    const std::uint32_t first = k.crc32c(0, data.data(), cut);
    check(k.crc32c(first, data.data() + cut, bytes - cut) == expected, "crc32c in two, bytes %zu",
          bytes);
  }
}

// What kernels() picks in a new process with ANNIDX_ISA set so.
bool picks(const char* wanted, const char* expected) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("ANNIDX_ISA", wanted, 1);
    _exit(std::strcmp(kernels().name, expected) == 0 ? 0 : 1);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

void test_dispatch() {
  const Kernels* levels[4];
  const std::size_t n = available_kernels(levels);
  check(n >= 1 && n <= 4, "available_kernels count %zu", n);
  check(std::strcmp(levels[0]->name, "scalar") == 0, "scalar comes first");
  for (std::size_t i = 0; i < n; ++i) {
    check(picks(levels[i]->name, levels[i]->name), "ANNIDX_ISA=%s", levels[i]->name);
  }
  check(picks("pentium", levels[n - 1]->name), "ANNIDX_ISA unknown");
  for (std::size_t i = 0; i < n; ++i) {
    check(force_kernels(levels[i]->name) && &kernels() == levels[i], "force %s", levels[i]->name);
  }
  check(!force_kernels("pentium") && &kernels() == levels[n - 1], "force unknown");
  prefetch_l2(nullptr, 1000);
  prefetch_l2(&n, 0);
}

void test_table(const Kernels& k) {
  test_distances(k);
  test_building(k);
  test_panel_dot(k);
  test_conversions(k);
  test_finite(k);
  test_route(k);
  test_select(k);
  test_compact(k);
  test_near_bound(k);
  test_sort_scores(k);
  test_scan_codes("scan_codes_additive", k.scan_codes_additive, false);
  test_scan_codes("scan_codes_multiplicative", k.scan_codes_multiplicative, true);
  test_gather_codes(k);
  test_luts(k);
  test_encode(k);
  test_rerank("rerank_i8", k.rerank_i8);
  test_rerank("rerank_u8", k.rerank_u8);
  test_rerank_limits("rerank_i8", k.rerank_i8);
  test_rerank_limits("rerank_u8", k.rerank_u8);
  test_rotate(k);
  test_row_scans(k);
  test_crc(k);
}

}  // namespace

int main() {
  g_table = "dispatch";
  test_dispatch();
  const Kernels* tables[kMaxTables];
  const std::size_t n = usable_tables(tables);
  for (std::size_t i = 0; i < n; ++i) {
    g_table = std::string(tables[i]->name) + " #" + std::to_string(i);
    test_table(*tables[i]);
    std::printf("%s done\n", g_table.c_str());
  }
  std::printf("%ld passed, %ld failed\n", g_passed, g_failed);
  return g_failed == 0 ? 0 : 1;
}
