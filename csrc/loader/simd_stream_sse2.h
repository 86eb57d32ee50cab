// Stores around the caches, on x86: a line at a time.
#pragma once

#include <emmintrin.h>

#include <cstddef>
#include <cstdint>

namespace gradring {

inline constexpr size_t kStreamLine = 64;

// Both for whole lines; `to` is aligned to one. What is read ahead of `from` goes around the caches too.
inline void stream_lines(std::byte* to, const std::byte* from, size_t bytes) noexcept {
  constexpr size_t kAhead = 4096;
  for (size_t i = 0; i < bytes; i += kStreamLine) {
    _mm_prefetch(reinterpret_cast<const char*>(from + i + kAhead), _MM_HINT_NTA);
    for (size_t part = 0; part < kStreamLine; part += sizeof(__m128i)) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + part),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + part)));
    }
  }
  _mm_sfence();
}

}  // namespace gradring
