// Loops over arrays by the threads of a grid, a block or a warp. device.h includes this.
//
// If all arrays reach a 16-byte boundary at the same element, whole vectors lie between a head and a tail of single
// elements; else each access is one element. Either way a thread issues `kUnroll` loads per array before it uses the
// first. One thread reads and writes an element, so a result may be an input's own memory.
#pragma once

namespace gradring::device {

// ThreadSanitizer remembers about four accesses per 8 bytes, so small blocks leave it more races to find.
#ifdef GRADRING_SOFTWARE_TSAN
inline constexpr int kElementThreads = 128;
#else
inline constexpr int kElementThreads = 256;
#endif

__device__ __forceinline__ int64_t thread_in_grid() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t threads_in_grid() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// The number of blocks for n elements: enough to fill a device with this many processors, and no more than the work
// needs.
inline unsigned element_blocks(int64_t n, int width, int processors) {
  const int64_t wanted = (n / width + kElementThreads) / kElementThreads;
  const int64_t most = int64_t{8} * (processors > 0 ? processors : 1);
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

// The arrays that a loop reads and writes. Shared memory may be among the results.
template <class T>
struct Arrays {
  const T* in[5] = {};
  T* out[4] = {};
};

template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Chunk {
  T v[kCount];
};

template <int kCount, class T>
__device__ __forceinline__ Chunk<T, kCount> load_chunk(const T* from) {
  Chunk<T, kCount> chunk;
  if constexpr (kCount == 1) {
    chunk.v[0] = *from;
  } else {
    const Vector16<T> vector = load16(from);
    GRADRING_UNROLL
    for (int k = 0; k < kCount; ++k) chunk.v[k] = vector.v[k];
  }
  return chunk;
}

template <int kCount, class T>
__device__ __forceinline__ void store_chunk(T* to, const Chunk<T, kCount>& chunk) {
  if constexpr (kCount == 1) {
    *to = chunk.v[0];
  } else {
    Vector16<T> vector;
    GRADRING_UNROLL
    for (int k = 0; k < kCount; ++k) vector.v[k] = chunk.v[k];
    store16(to, vector);
  }
}

template <int kIn, int kCount, class T>
struct Loaded {
  Chunk<T, kCount> in[kIn > 0 ? kIn : 1];
};

template <int kIn, int kCount, class Index, class T>
__device__ __forceinline__ Loaded<kIn, kCount, T> load_chunks(const Arrays<T>& a, Index i) {
  Loaded<kIn, kCount, T> loaded;
  GRADRING_UNROLL
  for (int k = 0; k < kIn; ++k) loaded.in[k] = load_chunk<kCount>(a.in[k] + i);
  return loaded;
}

template <int kIn, int kOut, int kCount, class Index, class T, class F>
__device__ __forceinline__ void finish_chunks(const Arrays<T>& a, Index i, const Loaded<kIn, kCount, T>& loaded,
                                              const F& f) {
  Chunk<T, kCount> results[kOut > 0 ? kOut : 1];
  GRADRING_UNROLL
  for (int e = 0; e < kCount; ++e) {
    Wide<T> x[kIn > 0 ? kIn : 1], y[kOut > 0 ? kOut : 1];
    GRADRING_UNROLL
    for (int k = 0; k < kIn; ++k) x[k] = widen(loaded.in[k].v[e]);
    f(static_cast<Index>(i + e), x, y);
    GRADRING_UNROLL
    for (int k = 0; k < kOut; ++k) results[k].v[e] = narrow<T>(y[k]);
  }
  GRADRING_UNROLL
  for (int k = 0; k < kOut; ++k) store_chunk<kCount>(a.out[k] + i, results[k]);
}

// Handles chunks me, me + all, ... of `count` chunks that begin at element `first`.
template <int kIn, int kOut, int kUnroll, int kCount, class Index, class T, class F>
__device__ __forceinline__ void for_chunks(Index me, Index all, Index first, Index count, const Arrays<T>& a,
                                           const F& f) {
  Index k = me;
  for (; k < count - (kUnroll - 1) * all; k += kUnroll * all) {
    Loaded<kIn, kCount, T> loaded[kUnroll];
    GRADRING_UNROLL
    for (int u = 0; u < kUnroll; ++u)
      loaded[u] = load_chunks<kIn, kCount>(a, static_cast<Index>(first + (k + u * all) * kCount));
    GRADRING_UNROLL
    for (int u = 0; u < kUnroll; ++u) {
      finish_chunks<kIn, kOut, kCount>(a, static_cast<Index>(first + (k + u * all) * kCount), loaded[u], f);
    }
  }
  for (; k < count; k += all) {
    const Index i = first + k * kCount;
    finish_chunks<kIn, kOut, kCount>(a, i, load_chunks<kIn, kCount>(a, i), f);
  }
}

// Thread `me` of `all` calls f(i, x, y) for its share of n elements: x[k] is element i of a.in[k], and y[k], which f sets,
// goes to a.out[k]. Index is int if n fits into it. n, `all` and the addresses modulo 16 bytes decide which thread handles
// an element, so loops over arrays that are aligned alike give a thread the same elements.
template <int kIn, int kOut, int kUnroll, class Index, class T, class F>
__device__ __forceinline__ void for_elements(Index me, Index all, Index n, const Arrays<T>& a, const F& f) {
  constexpr Index kV = kVectorWidth<T>;
  const auto base = reinterpret_cast<uintptr_t>(kIn > 0 ? static_cast<const void*>(a.in[0]) : a.out[0]);
  bool alike = true;
  GRADRING_UNROLL
  for (int k = 0; k < kIn; ++k) alike &= ((reinterpret_cast<uintptr_t>(a.in[k]) ^ base) & 15u) == 0;
  GRADRING_UNROLL
  for (int k = 0; k < kOut; ++k) alike &= ((reinterpret_cast<uintptr_t>(a.out[k]) ^ base) & 15u) == 0;
  if (!alike) return for_chunks<kIn, kOut, kUnroll, 1, Index>(me, all, 0, n, a, f);
  Index head = static_cast<Index>(((16 - (base & 15u)) & 15u) / sizeof(T));
  head = head < n ? head : n;
  const Index vectors = (n - head) / kV, tail = head + vectors * kV;
  for_chunks<kIn, kOut, 1, 1, Index>(me, all, 0, head, a, f);
  for_chunks<kIn, kOut, kUnroll, static_cast<int>(kV), Index>(me, all, head, vectors, a, f);
  for_chunks<kIn, kOut, 1, 1, Index>(me, all, tail, n - tail, a, f);
}

}  // namespace gradring::device
