// Writing to staging memory, whose lines other ranks have read last.
//
// An ordinary store to a line that another core has read first waits for that core to give it up, which asking ahead does
// not hide. A store around the caches does not wait, and the reader is no slower. So a rank never reads back what it has
// staged, which lies in no cache of its own: it reads its own array instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "comm/operand.h"

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)  // which sees ordinary stores alone
#include "comm/simd_stream_sse2.h"
#define GRADRING_STREAMS 1
#else
#define GRADRING_STREAMS 0
#endif

namespace gradring {

// Below this, waiting for the stores around the caches costs more than they save.
inline constexpr size_t kStreamFrom = 512;

inline void write_stage(std::byte* to, const std::byte* from, size_t bytes) noexcept {
#if GRADRING_STREAMS
  if (bytes >= kStreamFrom) {
    const size_t head = (64 - reinterpret_cast<uintptr_t>(to) % 64) % 64, lines = (bytes - head) / 64 * 64;
    std::memcpy(to, from, head);
    std::memcpy(to + head + lines, from + head + lines, bytes - head - lines);
    stream_lines(to + head, from + head, lines);
    return;
  }
#endif
  if (bytes) std::memcpy(to, from, bytes);
}

// Stages elements of an array, and returns where they lie one after another for this rank itself: in the array, or, if it
// has other strides, in `scratch`.
inline const std::byte* stage_elements(const Operand& array, int64_t first, int64_t count, std::byte* stage,
                                       std::byte* scratch) noexcept {
  const std::byte* from = scratch;
  if (array.contiguous()) {
    from = array.data() + static_cast<size_t>(first) * array.element_bytes();
  } else {
    array.gather(first, count, scratch);
  }
  if (count > 0) write_stage(stage, from, static_cast<size_t>(count) * array.element_bytes());
  return from;
}

}  // namespace gradring
