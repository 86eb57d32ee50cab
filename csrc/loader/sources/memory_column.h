// MemoryColumn: the rows of an array in this process's memory, with any strides and either byte order.
#pragma once

#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/column.h"

namespace gradring {

// How an array lies in memory.
struct ArrayLayout {
  const std::byte* data = nullptr;
  std::vector<int64_t> strides;  // in bytes: of the sample axis and then of each axis of a row
  bool swapped = false;          // whether the byte order is not this machine's
};

class GRADRING_API MemoryColumn final : public Column {
 public:
  // `owner` keeps the memory alive. Throws Error if the strides and the shape do not agree.
  MemoryColumn(FieldSpec spec, int64_t length, ArrayLayout layout, std::shared_ptr<const void> owner);

  bool begin(const int64_t* samples, int64_t rows, RowAddresses* where) const noexcept override;
  Status read(const int64_t* samples, int64_t rows, std::byte* to, int64_t* failed_row) const noexcept override;

 private:
  ArrayLayout layout_;
  bool plain_;  // a row's elements lie one after the other, in this machine's byte order
  std::shared_ptr<const void> owner_;
};

// Whether a row with these strides is one run of bytes.
bool contiguous_row(const FieldSpec& spec, const int64_t* row_strides) noexcept;
// Copies one row of any strides to a contiguous place.
void copy_strided_row(const FieldSpec& spec, const std::byte* from, const int64_t* row_strides, std::byte* to) noexcept;
// Reverses the byte order of every element of a contiguous array.
void swap_bytes(Dtype dtype, std::byte* data, int64_t elements) noexcept;

}  // namespace gradring
