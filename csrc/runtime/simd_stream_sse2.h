// Stores on x86 that bypass the caches, one cache line at a time.
#pragma once

#include <emmintrin.h>

#include <cstddef>

namespace gradring {

inline constexpr size_t kStreamLine = 64;

// Copies whole cache lines to `to`, which is aligned to one. It prefetches the source kAhead bytes ahead, bypassing the caches
// too (0: it prefetches nothing). It ends with a fence, so that a later store that publishes the bytes comes after them.
template <size_t kAhead>
void stream_lines(std::byte* to, const std::byte* from, size_t bytes) noexcept {
  constexpr size_t kParts = kStreamLine / sizeof(__m128i);
  for (size_t line = 0; line < bytes; line += kStreamLine) {
    if constexpr (kAhead > 0) _mm_prefetch(reinterpret_cast<const char*>(from + line + kAhead), _MM_HINT_NTA);
    __m128i part[kParts];
    for (size_t k = 0; k < kParts; ++k) part[k] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + line) + k);
    for (size_t k = 0; k < kParts; ++k) _mm_stream_si128(reinterpret_cast<__m128i*>(to + line) + k, part[k]);
  }
  _mm_sfence();
}

}  // namespace gradring
