// Stores around the caches, on x86: a line at a time.
#pragma once

#include <emmintrin.h>

#include <cstddef>

namespace gradring {

// For whole lines; `to` is aligned to one. What is stored is visible to others once something is published after it.
inline void stream_lines(std::byte* to, const std::byte* from, size_t bytes) noexcept {
  for (size_t line = 0; line < bytes; line += 64) {
    __m128i part[4];
    for (size_t k = 0; k < 4; ++k) part[k] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + line) + k);
    for (size_t k = 0; k < 4; ++k) _mm_stream_si128(reinterpret_cast<__m128i*>(to + line) + k, part[k]);
  }
  _mm_sfence();
}

}  // namespace gradring
