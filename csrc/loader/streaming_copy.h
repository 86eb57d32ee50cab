// A copy whose stores go around the caches: for batches that are so large together that no cache holds one until its
// slot is written again. An ordinary store would first read the line from memory, and push out another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include "loader/simd_stream_sse2.h"
#endif

namespace gradring {

// Below this the stores' weaker order costs more than it saves.
inline constexpr size_t kStreamFrom = 16 << 10;

// memcpy. Whoever publishes the bytes by a later store needs nothing more: the copy ends with a fence.
inline void streaming_copy(std::byte* to, const std::byte* from, size_t bytes) noexcept {
#ifdef __SSE2__
  if (bytes >= kStreamFrom) {
    const size_t head = (kStreamLine - reinterpret_cast<uintptr_t>(to) % kStreamLine) % kStreamLine;
    const size_t lines = (bytes - head) / kStreamLine * kStreamLine;
    std::memcpy(to, from, head);
    stream_lines(to + head, from + head, lines);
    std::memcpy(to + head + lines, from + head + lines, bytes - head - lines);
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

// A row, either way; there may be none of it.
inline void copy_row(std::byte* to, const std::byte* from, size_t bytes, bool streaming) noexcept {
  if (streaming) {
    streaming_copy(to, from, bytes);
  } else if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}

}  // namespace gradring
