// A copy whose stores go around the caches: for batches that are so large together that no cache holds one until its
// slot is written again. An ordinary store would first read the line from memory, and push out another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace gradring {

// Below this the stores' weaker order costs more than it saves.
inline constexpr size_t kStreamFrom = 16 << 10;

// memcpy. Whoever publishes the bytes by a later store needs nothing more: the copy ends with a fence.
inline void streaming_copy(std::byte* to, const std::byte* from, size_t bytes) noexcept {
#ifdef __SSE2__
  constexpr size_t kLine = 64;
  constexpr size_t kAhead = 4096;
  if (bytes >= kStreamFrom) {
    const size_t head = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;
    std::memcpy(to, from, head);
    size_t i = head;
    for (; i + kLine <= bytes; i += kLine) {
      _mm_prefetch(reinterpret_cast<const char*>(from + i + kAhead), _MM_HINT_NTA);
      for (size_t part = 0; part < kLine; part += 16) {
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + part),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + part)));
      }
    }
    std::memcpy(to + i, from + i, bytes - i);
    _mm_sfence();
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

}  // namespace gradring
