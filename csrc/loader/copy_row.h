// Copies of rows into batches.
#pragma once

#include "runtime/streaming_copy.h"

namespace gradring {

// `streaming` is for batches that together are so large that no cache keeps one until its slot is written again.
inline void copy_row(std::byte* to, const std::byte* from, size_t bytes, bool streaming) noexcept {
  if (streaming) {
    streaming_copy<(16 << 10), 4096>(to, from, bytes);
  } else if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}

}  // namespace gradring
