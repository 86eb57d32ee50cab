// Writes to staging memory that other ranks have read last. Staged operations use it, except the two
// exchanges of pieces (all_reduce.cc), in which a rank writes to lines that it has just read itself.
//
// An ordinary store to a line that another core has read waits until that core gives the line up, and a prefetch does not
// hide this. A store that bypasses the caches does not wait, and the reader is no slower. What a rank has staged is
// therefore in none of its own caches: it never reads that back, but reads its own array instead.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/operand.h"
#include "runtime/streaming_copy.h"

namespace gradring {

inline void write_stage(std::byte* to, const std::byte* from, size_t bytes) noexcept {
  streaming_copy<512>(to, from, bytes);
}

// Returns elements one after another: in the array itself, or, if the array has gaps, copied to `scratch`.
inline const std::byte* in_order(const CommOperand& array, int64_t first, int64_t count, std::byte* scratch) noexcept {
  if (array.contiguous()) return array.data() + static_cast<size_t>(first) * array.element_bytes();
  array.gather(first, count, scratch);
  return scratch;
}

// Copies elements of an array to staging memory, and returns where this rank itself can read them one after another.
inline const std::byte* stage_elements(const CommOperand& array, int64_t first, int64_t count, std::byte* stage,
                                       std::byte* scratch) noexcept {
  const std::byte* const from = in_order(array, first, count, scratch);
  if (count > 0) write_stage(stage, from, static_cast<size_t>(count) * array.element_bytes());
  return from;
}

}  // namespace gradring
