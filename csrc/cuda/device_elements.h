// Loops over arrays by all threads of a grid. device.h includes this.
//
// A body has: Loaded load(i), which reads one vector's worth of elements from i on; void finish(i, Loaded), which computes and
// writes them; void one(i), which does a single element. Vectors need all arrays on the same 16-byte boundary.
#pragma once

namespace gradring::device {

inline constexpr int kElementThreads = 256;

__device__ __forceinline__ int64_t thread_in_grid() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t threads_in_grid() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// Blocks for n elements on a device of so many processors: enough to fill it, no more than there is work for.
inline unsigned element_blocks(int64_t n, int width, int processors) {
  const int64_t wanted = (n / width + kElementThreads) / kElementThreads;
  const int64_t most = int64_t{8} * (processors > 0 ? processors : 1);
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

// head: elements before the common boundary; n if there is none. Unroll: vectors that are loaded before the first is used.
template <int Width, int Unroll, class Body>
__device__ __forceinline__ void for_elements(int64_t n, int64_t head, const Body& body) {
  const int64_t me = thread_in_grid(), all = threads_in_grid();
  const int64_t vectors = (n - head) / Width;
  for (int64_t i = me; i < head; i += all) body.one(i);
  int64_t k = me;
  for (; k + (Unroll - 1) * all < vectors; k += Unroll * all) {
    typename Body::Loaded loaded[Unroll];
    GRADRING_UNROLL
    for (int u = 0; u < Unroll; ++u) loaded[u] = body.load(head + (k + u * all) * Width);
    GRADRING_UNROLL
    for (int u = 0; u < Unroll; ++u) body.finish(head + (k + u * all) * Width, loaded[u]);
  }
  for (; k < vectors; k += all) body.finish(head + k * Width, body.load(head + k * Width));
  for (int64_t i = head + vectors * Width + me; i < n; i += all) body.one(i);
}

}  // namespace gradring::device
