// The process-wide seed of eager operations that draw random numbers without a seed of their own.
//
// | variable | writer      | readers   | order   | why                                                                |
// |----------|-------------|-----------|---------|--------------------------------------------------------------------|
// | base     | set_seed    | next_seed | relaxed | a number that stands alone                                         |
// | draws    | both        | next_seed | relaxed | a counter: two threads that draw at once get different numbers     |
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

// Restarts the sequence of next_seed. A process starts with set_seed(0).
GRADRING_API void set_seed(uint64_t seed) noexcept;
GRADRING_API uint64_t next_seed() noexcept;

}  // namespace gradring
