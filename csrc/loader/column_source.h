// ColumnSource: columns of equal length, side by side.
#pragma once

#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/column.h"
#include "loader/source.h"

namespace gradring {

class GRADRING_API ColumnSource final : public Source {
 public:
  // Throws Error if there is no column, or if lengths differ.
  explicit ColumnSource(std::vector<std::shared_ptr<const Column>> columns);

  int64_t length() const noexcept override { return columns_[0]->length(); }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }
  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override;
  void will_read(const int64_t* samples, int64_t rows) const noexcept override;

  const std::vector<std::shared_ptr<const Column>>& columns() const noexcept { return columns_; }

 private:
  std::vector<std::shared_ptr<const Column>> columns_;
  std::vector<FieldSpec> fields_;
};

// Checks that all numbers in `samples` lie in [0, length). The Status names the first number that does not.
Status check_samples(const ReadRequest& request, int64_t length, int64_t* failed_row) noexcept;

}  // namespace gradring
