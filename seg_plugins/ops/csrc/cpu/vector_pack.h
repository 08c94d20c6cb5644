// A few neighbouring channels in one vector register: what weighted_sum() adds up on the CPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "floating.h"
#include "roi_align.h"

namespace seg_plugins {

#if defined(__GNUC__)

// The compiler's vector types: arithmetic on them becomes the widest instructions of the function
// they are inlined into, so that one source serves SSE, AVX2, AVX-512 and NEON.
template <class A, int L>
struct VectorOf {
  typedef A Type __attribute__((vector_size(L * sizeof(A))));
};

// A store that leaves the caches to others. In assembly, because a function for every instruction
// set cannot call the intrinsic of one.
template <class Vector, class T>
SEG_INLINE void stream_vector(const Vector& value, T* to) {
#if defined(__x86_64__)
  auto* target = reinterpret_cast<Vector*>(to);
  if constexpr (sizeof(Vector) == 64) {
    asm volatile("vmovntps %1, %0" : "=m"(*target) : "v"(value));
    return;
  } else if constexpr (sizeof(Vector) == 32) {
    asm volatile("vmovntps %1, %0" : "=m"(*target) : "x"(value));
    return;
  } else if constexpr (sizeof(Vector) == 16) {
    asm volatile("movntps %1, %0" : "=m"(*target) : "x"(value));
    return;
  }
#endif
  std::memcpy(static_cast<void*>(to), &value, sizeof value);
}

// Brings streamed values before whatever this thread tells others next.
inline void stream_fence() {
#if defined(__x86_64__)
  asm volatile("sfence" ::: "memory");
#endif
}

template <class A, int L>
struct VectorPack {
  static constexpr int kLanes = L;
  using Vector = typename VectorOf<A, L>::Type;
  using Word = typename VectorOf<uint32_t, L>::Type;
  using Short = typename VectorOf<uint16_t, L>::Type;

  Vector value;

  SEG_INLINE void clear() { value = Vector{}; }

  SEG_INLINE void load(const A* from) { std::memcpy(&value, from, sizeof value); }

  SEG_INLINE void load(const BFloat16* from) {
    const Word bits = widen(from) << 16;
    std::memcpy(&value, &bits, sizeof value);
  }

  // Shifting the exponent field into place and scaling by 2^112 is exact, subnormals included;
  // infinity and NaN keep their exponent of ones by the last term.
  SEG_INLINE void load(const Half* from) {
    const Word half = widen(from);
    const Word shifted = (half & 0x7fff) << 13;
    Vector scaled;
    std::memcpy(&scaled, &shifted, sizeof scaled);
    scaled *= A(0x1p112f);
    Word bits;
    std::memcpy(&bits, &scaled, sizeof bits);
    const Word special = Word((half & 0x7c00) == 0x7c00) & 0x7f800000u;
    bits |= special | ((half & 0x8000) << 16);
    std::memcpy(&value, &bits, sizeof value);
  }

  template <class T>
  SEG_INLINE void add(A weight, const T* from) {
    VectorPack other;
    other.load(from);
    value += weight * other.value;
  }

  SEG_INLINE void store(A* to) const { std::memcpy(to, &value, sizeof value); }

  SEG_INLINE void store(BFloat16* to) const {
    const Short narrow = rounded();
    std::memcpy(static_cast<void*>(to), &narrow, sizeof narrow);
  }

  SEG_INLINE void store(Half* to) const {
    for (int i = 0; i < L; ++i) to[i] = Half(float(value[i]));
  }

  // The same past the caches, to an address that is a multiple of what is stored; stream_fence()
  // ends a series of them.
  SEG_INLINE void stream(A* to) const { stream_vector(value, to); }
  SEG_INLINE void stream(BFloat16* to) const { stream_vector(rounded(), to); }
  SEG_INLINE void stream(Half* to) const { store(to); }

 private:
  // To bfloat16: to the nearest even; NaN stays a (quiet) NaN.
  SEG_INLINE Short rounded() const {
    Word bits;
    std::memcpy(&bits, &value, sizeof bits);
    const Word nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Word is_nan = Word((bits & 0x7fffffff) > 0x7f800000u);
    return __builtin_convertvector((nearest & ~is_nan) | (is_nan & 0x7fc0), Short);
  }

  SEG_INLINE static Word widen(const void* from) {
    Short narrow;
    std::memcpy(&narrow, from, sizeof narrow);
    return __builtin_convertvector(narrow, Word);
  }
};

#else

template <class A, int L>
struct VectorPack {
  static constexpr int kLanes = L;
  A value[L];

  SEG_INLINE void clear() {
    for (int i = 0; i < L; ++i) value[i] = A(0);
  }
  template <class T>
  SEG_INLINE void load(const T* from) {
    for (int i = 0; i < L; ++i) value[i] = A(from[i]);
  }
  template <class T>
  SEG_INLINE void add(A weight, const T* from) {
    for (int i = 0; i < L; ++i) value[i] += weight * A(from[i]);
  }
  template <class T>
  SEG_INLINE void store(T* to) const {
    for (int i = 0; i < L; ++i) to[i] = T(value[i]);
  }
  template <class T>
  SEG_INLINE void stream(T* to) const {
    store(to);
  }
};

inline void stream_fence() {}

#endif

}  // namespace seg_plugins
