// crc32c.cpp owns CRC-32C (Castagnoli) in every form: by table, by SSE 4.2, by ARM's CRC
// extension. It must not know who stores the sums.
#include <cstring>

#include "kernels/levels.h"

#if ANNIDX_X86
#include <nmmintrin.h>
#endif
#if ANNIDX_NEON
#if !defined(__clang__)
#include <arm_acle.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

namespace annidx {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78u;  // reflected

struct Tables {
  std::uint32_t t[8][256];  // t[k][b]: byte b followed by k zero bytes
};

constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? kPolynomial : 0u);
    tables.t[0][b] = crc;
  }
  for (int k = 1; k < 8; ++k) {
    for (std::uint32_t b = 0; b < 256; ++b) {
      const std::uint32_t before = tables.t[k - 1][b];
      tables.t[k][b] = (before >> 8) ^ tables.t[0][before & 0xFFu];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

// A linear map of checksums: column[i] is the image of bit i.
struct BitMatrix {
  std::uint32_t column[32];
};

constexpr std::uint32_t apply(const BitMatrix& m, std::uint32_t crc) {
  std::uint32_t out = 0;
  for (int i = 0; i < 32; ++i) out ^= ((crc >> i) & 1u) ? m.column[i] : 0u;
  return out;
}

// One stream's share of a round: three streams run side by side because the CRC instruction
// takes three cycles and a new one can start each cycle.
constexpr std::size_t kStream = 2048;

// shift[k][b]: what byte k = b of a checksum becomes after kStream zero bytes.
struct Shift {
  std::uint32_t t[4][256];
};

constexpr Shift make_shift() {
  BitMatrix m{};
  for (int i = 0; i < 32; ++i) {  // one zero byte
    const std::uint32_t crc = 1u << i;
    m.column[i] = (crc >> 8) ^ kTables.t[0][crc & 0xFFu];
  }
  for (std::size_t bytes = 1; bytes < kStream; bytes *= 2) {
    BitMatrix twice{};
    for (int i = 0; i < 32; ++i) twice.column[i] = apply(m, m.column[i]);
    m = twice;
  }
  Shift shift{};
  for (int k = 0; k < 4; ++k) {
    for (std::uint32_t b = 0; b < 256; ++b) shift.t[k][b] = apply(m, b << (8 * k));
  }
  return shift;
}

#if ANNIDX_X86 || ANNIDX_NEON
constexpr Shift kShift = make_shift();

std::uint32_t after_stream(std::uint32_t crc) {
  return kShift.t[0][crc & 0xFFu] ^ kShift.t[1][(crc >> 8) & 0xFFu] ^
         kShift.t[2][(crc >> 16) & 0xFFu] ^ kShift.t[3][crc >> 24];
}

std::uint64_t load_u64(const std::uint8_t* p) {
  std::uint64_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
#endif

}  // namespace

std::uint32_t crc32c_table(std::uint32_t crc, const void* data, std::size_t bytes) {
  const auto* p = static_cast<const std::uint8_t*>(data);
  const auto& t = kTables.t;
  crc = ~crc;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    crc = t[7][(crc & 0xFFu) ^ p[0]] ^ t[6][((crc >> 8) & 0xFFu) ^ p[1]] ^
          t[5][((crc >> 16) & 0xFFu) ^ p[2]] ^ t[4][(crc >> 24) ^ p[3]] ^ t[3][p[4]] ^ t[2][p[5]] ^
          t[1][p[6]] ^ t[0][p[7]];
  }
  for (; bytes > 0; --bytes, ++p) crc = (crc >> 8) ^ t[0][(crc & 0xFFu) ^ *p];
  return ~crc;
}

#if ANNIDX_X86 || ANNIDX_NEON

#if defined(__clang__) && ANNIDX_X86 && __clang_major__ >= 14  // from where crc32 is a name
#pragma clang attribute push(__attribute__((target("sse4.2,crc32"))), apply_to = function)
#elif defined(__clang__) && ANNIDX_X86
#pragma clang attribute push(__attribute__((target("sse4.2"))), apply_to = function)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("crc"))), apply_to = function)
#elif ANNIDX_X86
#pragma GCC push_options
#pragma GCC target("sse4.2")
#else
#pragma GCC push_options
#pragma GCC target("+crc")
#endif

namespace {

#if ANNIDX_X86
std::uint32_t step8(std::uint32_t crc, std::uint64_t v) {
  return static_cast<std::uint32_t>(_mm_crc32_u64(crc, v));
}
std::uint32_t step1(std::uint32_t crc, std::uint8_t v) { return _mm_crc32_u8(crc, v); }
#elif defined(__clang__)  // whose header hides the intrinsics where not every CPU has them
std::uint32_t step8(std::uint32_t crc, std::uint64_t v) { return __builtin_arm_crc32cd(crc, v); }
std::uint32_t step1(std::uint32_t crc, std::uint8_t v) { return __builtin_arm_crc32cb(crc, v); }
#else
std::uint32_t step8(std::uint32_t crc, std::uint64_t v) { return __crc32cd(crc, v); }
std::uint32_t step1(std::uint32_t crc, std::uint8_t v) { return __crc32cb(crc, v); }
#endif

std::uint32_t crc32c_instruction(std::uint32_t crc, const void* data, std::size_t bytes) {
  const auto* p = static_cast<const std::uint8_t*>(data);
  crc = ~crc;
  for (; bytes >= 3 * kStream; bytes -= 3 * kStream, p += 3 * kStream) {
    std::uint32_t second = 0;
    std::uint32_t third = 0;
    for (std::size_t i = 0; i < kStream; i += 8) {
      crc = step8(crc, load_u64(p + i));
      second = step8(second, load_u64(p + kStream + i));
      third = step8(third, load_u64(p + 2 * kStream + i));
    }
    crc = after_stream(after_stream(crc) ^ second) ^ third;
  }
  for (; bytes >= 8; bytes -= 8, p += 8) crc = step8(crc, load_u64(p));
  for (; bytes > 0; --bytes, ++p) crc = step1(crc, *p);
  return ~crc;
}

}  // namespace

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

#if ANNIDX_X86
std::uint32_t crc32c_sse42(std::uint32_t crc, const void* data, std::size_t bytes) {
  return crc32c_instruction(crc, data, bytes);
}
#endif

#if ANNIDX_NEON
namespace {

bool has_crc_instruction() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

}  // namespace

std::uint32_t crc32c_arm(std::uint32_t crc, const void* data, std::size_t bytes) {
  static const bool has_instruction = has_crc_instruction();
  return has_instruction ? crc32c_instruction(crc, data, bytes) : crc32c_table(crc, data, bytes);
}
#endif

}  // namespace annidx
