// The size of the second cache, by which products choose their blocks.
#pragma once

namespace gradring {

// The size of a core's second cache in bytes, asked of the system once. Kernels call it.
long second_cache_bytes() noexcept;
// Sets that size, for tests; 0 sets what the system says. It may not change between matmul_scratch and matmul.
void set_second_cache_bytes(long bytes) noexcept;

}  // namespace gradring
