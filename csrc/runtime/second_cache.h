// The size of the second cache, by which products choose their blocks.
#pragma once

#include "gradring/export.h"

namespace gradring {

// The size of a core's second cache in bytes, asked of the system once. Kernels call it.
GRADRING_API long second_cache_bytes() noexcept;
// Sets that size, for tests; 0 sets what the system says. It may not change between matmul_scratch and matmul.
GRADRING_API void set_second_cache_bytes(long bytes) noexcept;

}  // namespace gradring
