#include "loader/sources/concat_column.h"

#include <algorithm>
#include <string>
#include <utility>

#include "loader/gather.h"

namespace gradring {

namespace {

constexpr int64_t kRows = 256;  // how many rows are looked up at a time

const std::shared_ptr<const Column>& first_of(const std::vector<std::shared_ptr<const Column>>& parts) {
  if (parts.empty()) throw Error(Code::kInvalidArgument, "[loader] Concat needs at least one part");
  return parts[0];
}

int64_t length_of(const std::vector<std::shared_ptr<const Column>>& parts) {
  int64_t length = 0;
  for (const auto& part : parts) {
    if (__builtin_add_overflow(length, part->length(), &length)) {
      throw Error(Code::kInvalidArgument, "[loader] Concat has more samples than can be counted");
    }
  }
  return length;
}

}  // namespace

ConcatColumn::ConcatColumn(std::vector<std::shared_ptr<const Column>> parts)
    : Column(first_of(parts)->spec(), length_of(parts)), parts_(std::move(parts)) {
  int64_t end = 0;
  for (const auto& part : parts_) {
    if (part->spec().dtype != spec().dtype || part->spec().shape != spec().shape) {
      throw Error(Code::kInvalidArgument, "[loader] the parts of field '" + spec().name + "' have rows that differ");
    }
    ends_.push_back(end += part->length());
  }
}

ConcatColumn::Run ConcatColumn::take_run(const int64_t* samples, int64_t rows, int64_t* numbers) const noexcept {
  const auto found = std::upper_bound(ends_.begin(), ends_.end(), samples[0]);
  const auto part = static_cast<size_t>(found - ends_.begin());
  const int64_t begin = part == 0 ? 0 : ends_[part - 1], end = *found;
  int64_t count = 0;
  for (; count < std::min(rows, kRows) && samples[count] >= begin && samples[count] < end; ++count) {
    numbers[count] = samples[count] - begin;
  }
  return {part, count};
}

Status ConcatColumn::read(const int64_t* samples, int64_t rows, std::byte* to, int64_t* failed_row) const noexcept {
  int64_t numbers[kRows];
  ReadRequest request;
  request.samples = numbers;
  for (int64_t first = 0; first < rows;) {
    const Run run = take_run(samples + first, rows - first, numbers);
    request.rows = run.rows;
    *failed_row = 0;
    Status status = gather(*parts_[run.part], nullptr, request, to, failed_row);
    if (!status.ok()) {
      *failed_row += first;
      return status;
    }
    to += static_cast<size_t>(run.rows) * spec().row_bytes();
    first += run.rows;
  }
  return {};
}

void ConcatColumn::will_read(const int64_t* samples, int64_t rows) const noexcept {
  int64_t numbers[kRows];
  for (int64_t first = 0; first < rows;) {
    const Run run = take_run(samples + first, rows - first, numbers);
    parts_[run.part]->will_read(numbers, run.rows);
    first += run.rows;
  }
}

}  // namespace gradring
