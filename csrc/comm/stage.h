// Writing to staging memory whose lines other ranks have read last: in all staged operations but the exchange between two
// ranks (all_reduce.cc), in which a rank writes to lines that it has read itself.
//
// An ordinary store to a line that another core has read first waits for that core to give it up, which asking ahead does
// not hide. A store around the caches does not wait, and the reader is no slower. So a rank never reads back what it has
// staged, which lies in no cache of its own: it reads its own array instead.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/operand.h"
#include "runtime/streaming_copy.h"

namespace gradring {

inline void write_stage(std::byte* to, const std::byte* from, size_t bytes) noexcept {
  streaming_copy<512>(to, from, bytes);
}

// Where elements of an array lie one after another: in the array, or, if it has other strides, in `scratch`.
inline const std::byte* in_order(const Operand& array, int64_t first, int64_t count, std::byte* scratch) noexcept {
  if (array.contiguous()) return array.data() + static_cast<size_t>(first) * array.element_bytes();
  array.gather(first, count, scratch);
  return scratch;
}

// Stages elements of an array, and returns where they lie one after another for this rank itself.
inline const std::byte* stage_elements(const Operand& array, int64_t first, int64_t count, std::byte* stage,
                                       std::byte* scratch) noexcept {
  const std::byte* const from = in_order(array, first, count, scratch);
  if (count > 0) write_stage(stage, from, static_cast<size_t>(count) * array.element_bytes());
  return from;
}

}  // namespace gradring
