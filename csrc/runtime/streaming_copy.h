// A copy whose stores bypass the caches. An ordinary store first reads its line, from memory or from the core that has it, and
// evicts another line from the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)  // ThreadSanitizer sees ordinary stores alone
#include "runtime/simd_stream_sse2.h"
#define GRADRING_STREAMS 1
#else
#define GRADRING_STREAMS 0
#endif

namespace gradring {

// Copies like memcpy; `bytes` may be 0. Below kFrom bytes it uses ordinary stores, because the fence at the end would cost more
// than the streaming stores save. kAhead means the same as in stream_lines.
template <size_t kFrom, size_t kAhead = 0>
void streaming_copy(std::byte* to, const std::byte* from, size_t bytes) noexcept {
#if GRADRING_STREAMS
  static_assert(kFrom >= kStreamLine);
  if (bytes >= kFrom) {
    const size_t head = (kStreamLine - reinterpret_cast<uintptr_t>(to) % kStreamLine) % kStreamLine;
    const size_t lines = (bytes - head) / kStreamLine * kStreamLine;
    std::memcpy(to, from, head);
    std::memcpy(to + head + lines, from + head + lines, bytes - head - lines);
    stream_lines<kAhead>(to + head, from + head, lines);
    return;
  }
#endif
  if (bytes > 0) std::memcpy(to, from, bytes);
}

}  // namespace gradring
