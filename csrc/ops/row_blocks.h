// Sums over rows go in fixed blocks of rows, each summed by one lane in order, and the blocks' sums are added in order:
// the same bits for any number of lanes.
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

inline constexpr int64_t kRowBlock = 32;

constexpr int64_t row_blocks(int64_t rows) noexcept { return (rows + kRowBlock - 1) / kRowBlock; }

// Below this many elements one lane does everything: a barrier costs more.
inline constexpr int64_t kOneLaneElements = 4096;

}  // namespace gradring
