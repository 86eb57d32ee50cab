// Sizes of memory in whole cache lines, or pages.
#pragma once

#include <cstddef>

namespace gradring {

inline constexpr size_t kCacheLine = 64;

constexpr size_t round_up(size_t bytes, size_t to = kCacheLine) noexcept { return (bytes + to - 1) / to * to; }

}  // namespace gradring
