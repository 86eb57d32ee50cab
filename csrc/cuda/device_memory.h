// 16-byte vectors of global memory, and the types that memory may hold. device.h includes this.
#pragma once

namespace gradring::device {

// Sums and formulas of 16-bit storage run in float.
template <class T>
struct WideOf {
  using type = T;
};
template <>
struct WideOf<__nv_bfloat16> {
  using type = float;
};
template <>
struct WideOf<__half> {
  using type = float;
};
template <class T>
using Wide = typename WideOf<T>::type;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }

template <class T>
__device__ __forceinline__ T narrow(Wide<T> x) {
  if constexpr (sizeof(T) > 2) {
    return x;
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else {
    return __float2bfloat16_rn(x);
  }
}

template <class T>
inline constexpr int kVectorWidth = 16 / static_cast<int>(sizeof(T));

template <class T>
struct alignas(16) Vector16 {
  T v[kVectorWidth<T>];
};

// One 16-byte access; `from` must be 16-byte aligned.
template <class T>
__device__ __forceinline__ Vector16<T> load16(const T* from) {
  Vector16<T> vector;
#ifdef GRADRING_SOFTWARE_DEVICE
  ::gradring::software::check_access(from, 16);
  ::gradring::software::copy_16_bytes(&vector, from);
#else
  *reinterpret_cast<uint4*>(&vector) = *reinterpret_cast<const uint4*>(from);
#endif
  return vector;
}

template <class T>
__device__ __forceinline__ void store16(T* to, const Vector16<T>& vector) {
#ifdef GRADRING_SOFTWARE_DEVICE
  ::gradring::software::check_access(to, 16);
  ::gradring::software::copy_16_bytes(to, &vector);
#else
  // If a formula has branches, the compiler would split an ordinary store of four words.
  uint32_t w[4];
  memcpy(w, &vector, sizeof w);
  asm volatile("st.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");
#endif
}

// How many of n elements lie before the first 16-byte boundary.
template <class T>
__device__ __forceinline__ int64_t elements_to_boundary(const T* p, int64_t n) {
  const int64_t lead = static_cast<int64_t>((16 - reinterpret_cast<uintptr_t>(p) % 16) % 16 / sizeof(T));
  return lead < n ? lead : n;
}

// Whether both arrays reach a 16-byte boundary at the same element.
template <class T>
__device__ __forceinline__ bool same_boundary(const T* a, const T* b) {
  return (reinterpret_cast<uintptr_t>(a) ^ reinterpret_cast<uintptr_t>(b)) % 16 == 0;
}

}  // namespace gradring::device
