// How often this process and its ancestors have forked. An object that owns threads compares the number with an earlier one:
// if it has grown, the object is in a forked child, where its threads do not exist.
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
