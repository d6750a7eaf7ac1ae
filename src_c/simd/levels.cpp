// levels.cpp owns CPU detection. It must not compute anything else, and must run on any CPU.
#include "levels.h"

namespace annidx {

#if ANNIDX_X86
namespace {

// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("sse4.2");
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
  return n;
}

}  // namespace annidx
