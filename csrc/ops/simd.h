// Portable vectors for kernels that are compiled once per ISA level. Include it only from *_cpu.cc files listed with
// gradring_isa_sources in CMake: each compile defines GRADRING_ISA_NAMESPACE (isa_base, isa_avx2, isa_avx512) and
// GRADRING_VECTOR_BYTES.
//
// All code in such a file must have internal linkage or lie in the ISA namespace. If the compiler does not inline an inline
// function of a shared header, it emits it once per level, and the linker may keep the AVX-512 copy for all processors. So these
// files use no standard containers or algorithms. A test checks the symbols of the object files.
//
// In device code (*.cu, after cuda/device.h) a vector is one element: simd/scalar.h.
#pragma once

#ifdef GRADRING_DEVICE_CODE
#include "ops/simd/scalar.h"
#else

#include <cstdint>
#include <cstring>

// At -Os (older processors' kernels) the compiler decides: copies of exp or tanh in every loop would fill the library.
#ifdef __OPTIMIZE_SIZE__
#define GRADRING_INLINE inline
#else
#define GRADRING_INLINE inline __attribute__((always_inline))
#endif
#define GRADRING_UNROLL_16 _Pragma("GCC unroll 16")

// Nearly all x86 processors have AVX2. For the others, small code counts for more than fast code.
#if defined(__x86_64__) && !defined(__AVX2__)
#define GRADRING_SMALL_CODE 1
#define GRADRING_PARTIAL [[gnu::noinline]]  // a function that handles a part of a vector
#else
#define GRADRING_SMALL_CODE 0
#define GRADRING_PARTIAL GRADRING_INLINE
#endif

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr bool kSmallCode = GRADRING_SMALL_CODE;

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(GRADRING_VECTOR_BYTES)));
};
// Vec<float>, Vec<double>, Vec<int32_t>, ...
template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
inline constexpr int kWidth = GRADRING_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
GRADRING_INLINE Vec<T> load(const T* from) noexcept {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
GRADRING_INLINE void store(T* to, Vec<T> v) noexcept {
  __builtin_memcpy(to, &v, sizeof v);
}

template <class T>
GRADRING_INLINE Vec<T> broadcast(T x) noexcept {
  return x - Vec<T>{};
}

// Loads the first n elements and fills the rest with zeros. It reads nothing beyond them.
template <class T>
GRADRING_PARTIAL Vec<T> load_partial(const T* from, int64_t n) noexcept {
  Vec<T> v{};
  for (int64_t i = 0; i < n; ++i) v[i] = from[i];
  return v;
}

template <class T>
GRADRING_PARTIAL void store_partial(T* to, Vec<T> v, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) to[i] = v[i];
}

// a > b ? a : b for each element: b where either is NaN.
template <class T>
GRADRING_INLINE Vec<T> maximum(Vec<T> a, Vec<T> b) noexcept {
  return a > b ? a : b;
}
template <class T>
GRADRING_INLINE Vec<T> minimum(Vec<T> a, Vec<T> b) noexcept {
  return a < b ? a : b;
}

template <class T>
GRADRING_INLINE Vec<T> square_root(Vec<T> x) noexcept {
  for (int i = 0; i < kWidth<T>; ++i) {
    if constexpr (sizeof(T) == 4) {
      x[i] = __builtin_sqrtf(x[i]);
    } else {
      x[i] = __builtin_sqrt(x[i]);
    }
  }
  return x;
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// These headers replace some functions by a single instruction that compilers do not find.
#if defined(__AVX512F__) && GRADRING_VECTOR_BYTES == 64
#include "ops/simd_avx512.h"
#elif defined(__AVX2__) && GRADRING_VECTOR_BYTES == 32
#include "ops/simd_avx2.h"
#elif defined(__SSE2__) && GRADRING_VECTOR_BYTES == 16
#include "ops/simd_sse2.h"
#endif

#endif
