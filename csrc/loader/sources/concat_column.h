// ConcatColumn: columns of equal rows, one after the other.
#pragma once

#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/column.h"

namespace gradring {

class GRADRING_API ConcatColumn final : public Column {
 public:
  // Throws Error if there are no parts, if rows differ, or if there are more samples than an int64 counts.
  explicit ConcatColumn(std::vector<std::shared_ptr<const Column>> parts);

  Status read(const int64_t* samples, int64_t rows, std::byte* to, int64_t* failed_row) const noexcept override;
  void will_read(const int64_t* samples, int64_t rows) const noexcept override;

 private:
  // A run of rows that lie within one part.
  struct Run {
    size_t part;
    int64_t rows;
  };
  Run take_run(const int64_t* samples, int64_t rows, int64_t* numbers) const noexcept;

  std::vector<std::shared_ptr<const Column>> parts_;
  std::vector<int64_t> ends_;  // the number of the first sample after each part
};

}  // namespace gradring
