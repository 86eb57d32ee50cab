// How often this process's line has forked: what owns threads compares it to see that it is in a child without them.
//
// | variable | writer           | readers      | order   | why                                                    |
// |----------|------------------|--------------|---------|--------------------------------------------------------|
// | forks    | the fork handler | forks_so_far | relaxed | it is written while the child has one thread alone     |
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

// A child of fork counts one more than its parent did. Forks before the first call are not counted.
GRADRING_API uint64_t forks_so_far() noexcept;

}  // namespace gradring
