// An array as collectives see it: bytes of any strides, read and written as if they lay one after another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gradring/export.h"

namespace gradring {

class CommOperand {
 public:
  CommOperand() noexcept = default;
  // A contiguous operand: its elements lie one after another.
  CommOperand(void* data, int64_t elements, size_t element_bytes) noexcept
      : data_(static_cast<std::byte*>(data)), elements_(elements), element_bytes_(element_bytes) {}
  // The axes are in C order and the strides in bytes. Neighbouring axes are merged if their elements lie without a gap.
  GRADRING_API CommOperand(void* data, int axes, const int64_t* sizes, const int64_t* strides, size_t element_bytes);

  bool contiguous() const noexcept { return axes_.empty(); }
  std::byte* data() const noexcept { return data_; }  // a contiguous operand lies here as a whole
  int64_t elements() const noexcept { return elements_; }
  size_t element_bytes() const noexcept { return element_bytes_; }
  size_t bytes() const noexcept { return static_cast<size_t>(elements_) * element_bytes_; }

  // Copies `count` elements, from element `first` on, to or from contiguous memory.
  void gather(int64_t first, int64_t count, std::byte* to) const noexcept;
  void scatter(int64_t first, int64_t count, const std::byte* from) const noexcept;
  void copy_from(const CommOperand& other) const noexcept;  // `other` has as many elements, of the same size

  // The first byte that the operand may touch, and the byte after its last one.
  struct Extent {
    uintptr_t begin, end;
  };
  GRADRING_API Extent extent() const noexcept;
  // Whether two elements may share a byte. It may return true although none do.
  GRADRING_API bool overlaps_itself() const;

 private:
  struct Axis {
    int64_t size, stride;
  };
  template <class Move>
  void walk(int64_t first, int64_t count, Move&& move) const noexcept;

  std::byte* data_ = nullptr;
  int64_t elements_ = 0;
  size_t element_bytes_ = 1;
  std::vector<Axis> axes_;  // outermost first; none: contiguous
};

}  // namespace gradring
