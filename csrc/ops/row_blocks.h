// Kernels sum over rows in fixed blocks of rows. One lane adds up a block, row after row, and the sums of the blocks are added in
// order, so the number of lanes changes no bit.
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

inline constexpr int64_t kRowBlock = 32;

constexpr int64_t row_blocks(int64_t rows) noexcept { return (rows + kRowBlock - 1) / kRowBlock; }

// Below this many elements one lane does everything, because a barrier would cost more than it saves.
inline constexpr int64_t kOneLaneElements = 4096;

}  // namespace gradring
