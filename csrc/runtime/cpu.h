// What this processor offers, and how much of the machine this process may use.
#pragma once

#include "gradring/export.h"

namespace gradring {

// The instruction sets. Each level includes the ones before it. Architectures other than x86-64 have kBase alone.
enum class Isa : int { kBase = 0, kAvx2 = 1, kAvx512 = 2 };

GRADRING_API const char* isa_name(Isa isa) noexcept;
GRADRING_API Isa detected_isa() noexcept;
// The level that kernels run at: the detected one, or a lower one named by GRADRING_ISA or set_isa.
GRADRING_API Isa active_isa() noexcept;
// Sets the level, for tests. It returns false, and changes nothing, if the processor does not have that level.
GRADRING_API bool set_isa(Isa isa) noexcept;

// Whether the processor has products of bf16 in vectors of 64 bytes (AVX512_BF16), and the system keeps those registers. The level
// does not matter.
bool has_avx512_bf16() noexcept;

// How many cores this process may use: the smaller of its affinity mask and its control group's CPU quota, at least 1.
GRADRING_API int usable_cores() noexcept;

struct CacheSizes {
  long l1_data;
  long l2;
  long l3;
};
CacheSizes cache_sizes() noexcept;

}  // namespace gradring
