#include "loader/column_source.h"

#include <string>

#include "loader/gather.h"

namespace gradring {

ColumnSource::ColumnSource(std::vector<std::shared_ptr<const Column>> columns) : columns_(std::move(columns)) {
  if (columns_.empty()) throw Error(Code::kInvalidArgument, "[loader] a source needs at least one field");
  for (const auto& column : columns_) {
    if (column->length() != columns_[0]->length()) {
      throw Error(Code::kInvalidArgument,
                  "[loader] field '" + column->spec().name + "' has " + std::to_string(column->length()) +
                      " samples and field '" + columns_[0]->spec().name + "' has " +
                      std::to_string(columns_[0]->length()) + ": the first axes must be equally long");
    }
    fields_.push_back(column->spec());
  }
  if (length() == 0) {
    std::string shape = "(0,";
    for (const int64_t extent : columns_[0]->spec().shape) shape += " " + std::to_string(extent) + ",";
    if (shape != "(0,") shape.pop_back();
    throw Error(Code::kInvalidArgument, "[loader] the source is empty: field '" + columns_[0]->spec().name + "' is " +
                                            shape + "), there must be at least one sample");
  }
}

Status check_samples(const ReadRequest& request, int64_t length, int64_t* failed_row) noexcept {
  for (int64_t row = 0; row < request.rows; ++row) {
    if (static_cast<uint64_t>(request.samples[row]) >= static_cast<uint64_t>(length)) {
      *failed_row = row;
      return {Code::kOutOfRange, "[loader] sample %lld is out of range: the source has %lld samples",
              static_cast<long long>(request.samples[row]), static_cast<long long>(length)};
    }
  }
  return {};
}

Status ColumnSource::read(const ReadRequest& request, int64_t* failed_row) const noexcept {
  if (Status status = check_samples(request, length(), failed_row); !status.ok()) return status;
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (Status status = gather(*columns_[i], nullptr, request, request.fields[i], failed_row); !status.ok()) {
      return status;
    }
  }
  return {};
}

void ColumnSource::will_read(const int64_t* samples, int64_t rows) const noexcept {
  for (const auto& column : columns_) column->will_read(samples, rows);
}

}  // namespace gradring
