// Run-time choice of AVX2: a function marked SEG_TARGET_AVX2 is compiled for it whatever the flags
// of the file, and called only where has_avx2() says so. Elsewhere the portable form is the only
// one.

#pragma once

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SEG_TARGET_AVX2 __attribute__((target("avx2")))
#define SEG_HAS_AVX2_TARGET 1
#else
#define SEG_HAS_AVX2_TARGET 0
#endif

namespace seg_plugins {

inline bool has_avx2() {
#if SEG_HAS_AVX2_TARGET
  static const bool supported = __builtin_cpu_supports("avx2");
  return supported;
#else
  return false;
#endif
}

}  // namespace seg_plugins
