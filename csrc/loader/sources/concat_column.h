// ConcatColumn: columns of equal rows, one after the other.
#pragma once

#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/column.h"

namespace gradring {

class GRADRING_API ConcatColumn final : public Column {
 public:
  // Throws Error: no parts, rows that differ, or more samples than an int64 counts.
  explicit ConcatColumn(std::vector<std::shared_ptr<const Column>> parts);

  Status read(const int64_t* samples, int64_t rows, std::byte* to, int64_t* failed_row) const noexcept override;
  void will_read(const int64_t* samples, int64_t rows) const noexcept override;

 private:
  // A run of rows within one part: numbers there, and how many.
  struct Run {
    size_t part;
    int64_t rows;
  };
  Run take_run(const int64_t* samples, int64_t rows, int64_t* numbers) const noexcept;

  std::vector<std::shared_ptr<const Column>> parts_;
  std::vector<int64_t> ends_;  // where each part ends, in the numbers of the whole
};

}  // namespace gradring
