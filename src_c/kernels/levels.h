// levels.h owns the list of kernel tables that are compiled in and the question which of them
// this CPU can run. It must not know what any kernel computes.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define ANNIDX_X86 1
#else
#define ANNIDX_X86 0
#endif
#if (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__) && !defined(__AARCH64EB__)
#define ANNIDX_NEON 1
#else
#define ANNIDX_NEON 0
#endif
// Clang before 16 has the dot-product intrinsics only where every CPU built for has them.
#if ANNIDX_NEON && (!defined(__clang__) || __clang_major__ >= 16 || defined(__ARM_FEATURE_DOTPROD))
#define ANNIDX_NEON_DOT 1
#else
#define ANNIDX_NEON_DOT 0
#endif

namespace annidx {

// Tables of one name are variants of one level, for CPUs with more and more extensions.
extern const Kernels kScalarKernels;
#if ANNIDX_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;         // F, BW, VL, DQ (Skylake)
extern const Kernels kAvx512VnniKernels;     // and VNNI (Cascade Lake)
extern const Kernels kAvx512IcelakeKernels;  // and VBMI, VPOPCNTDQ (Ice Lake, Zen 4)
#endif
#if ANNIDX_NEON
extern const Kernels kNeonKernels;
#endif
#if ANNIDX_NEON_DOT
extern const Kernels kNeonDotKernels;  // and the dot-product extension
#endif

inline constexpr std::size_t kMaxTables = 5;

// Every table this CPU (and its operating system) can run, worst first, at most kMaxTables.
std::size_t usable_tables(const Kernels** out) noexcept;

// CRC-32C, start with 0: by table, and by the CPU's instruction where it has one.
std::uint32_t crc32c_table(std::uint32_t crc, const void* data, std::size_t bytes);
#if ANNIDX_X86
std::uint32_t crc32c_sse42(std::uint32_t crc, const void* data, std::size_t bytes);
#endif
#if ANNIDX_NEON
// By table on the few machines without the instruction.
std::uint32_t crc32c_arm(std::uint32_t crc, const void* data, std::size_t bytes);
#endif

}  // namespace annidx
