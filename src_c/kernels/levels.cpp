// levels.cpp owns CPU detection. It must not compute anything else, and must run on any CPU.
#include "kernels/levels.h"

#if ANNIDX_X86
#include <cpuid.h>
#endif
#if ANNIDX_NEON_DOT && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace annidx {

#if ANNIDX_X86
namespace {

// Not among the names that every compiler's __builtin_cpu_supports knows.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("sse4.2") && has_f16c();
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool has_avx512_icelake() {
  return has_avx512_vnni() && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

}  // namespace
#endif

#if ANNIDX_NEON_DOT
namespace {

bool has_dotprod() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

}  // namespace
#endif

std::size_t usable_tables(const Kernels** out) noexcept {
  std::size_t n = 0;
  out[n++] = &kScalarKernels;
#if ANNIDX_X86
  __builtin_cpu_init();
  if (has_avx2()) out[n++] = &kAvx2Kernels;
  if (has_avx512()) out[n++] = &kAvx512Kernels;
  if (has_avx512_vnni()) out[n++] = &kAvx512VnniKernels;
  if (has_avx512_icelake()) out[n++] = &kAvx512IcelakeKernels;
#endif
#if ANNIDX_NEON
  out[n++] = &kNeonKernels;
#endif
#if ANNIDX_NEON_DOT
  if (has_dotprod()) out[n++] = &kNeonDotKernels;
#endif
  return n;
}

}  // namespace annidx
