#include "loader/selected_source.h"

#include <algorithm>
#include <string>
#include <utility>

#include "loader/column_source.h"
#include "runtime/round_up.h"

namespace gradring {

namespace {

constexpr int64_t kRows = 256;             // how many rows are mapped at a time
constexpr uint64_t kOrder = ~uint64_t{0};  // the key of a division's order; no epoch has it

class Numbers final : public Selection {
 public:
  explicit Numbers(std::vector<int64_t> numbers) : numbers_(std::move(numbers)) {}
  int64_t length() const noexcept override { return static_cast<int64_t>(numbers_.size()); }
  void map(const int64_t* positions, int64_t rows, int64_t* samples) const noexcept override {
    for (int64_t row = 0; row < rows; ++row) samples[row] = numbers_[static_cast<size_t>(positions[row])];
  }

 private:
  std::vector<int64_t> numbers_;
};

class PartOfAll final : public Selection {
 public:
  PartOfAll(const SelectedPart& part, int64_t length)
      : part_(part), all_(length), order_(static_cast<uint64_t>(length), part.seed, kOrder) {}
  int64_t length() const noexcept override {
    const int64_t inside = part_.end - part_.begin;
    return part_.others ? all_ - inside : inside;
  }
  void map(const int64_t* positions, int64_t rows, int64_t* samples) const noexcept override {
    for (int64_t row = 0; row < rows; ++row) {
      int64_t place = positions[row];
      if (!part_.others) {
        place += part_.begin;
      } else if (place >= part_.begin) {
        place += part_.end - part_.begin;
      }
      samples[row] = part_.shuffle ? static_cast<int64_t>(order_(static_cast<uint64_t>(place))) : place;
    }
  }

 private:
  SelectedPart part_;
  int64_t all_;
  Permutation order_;
};

class SelectedSource final : public Source {
 public:
  SelectedSource(std::shared_ptr<const Source> source, std::shared_ptr<const Selection> selection)
      : source_(std::move(source)), selection_(std::move(selection)), own_(round_up(source_->scratch_bytes())) {}

  int64_t length() const noexcept override { return selection_->length(); }
  const std::vector<FieldSpec>& fields() const noexcept override { return source_->fields(); }
  size_t scratch_bytes() const noexcept override { return own_ + fields().size() * sizeof(std::byte*); }
  std::vector<std::string> parts() const override { return source_->parts(); }

  void number(int64_t* samples, int64_t rows) const noexcept override {
    selection_->map(samples, rows, samples);
    source_->number(samples, rows);
  }
  void will_read(const int64_t* samples, int64_t rows) const noexcept override {
    int64_t numbers[kRows];
    for (int64_t first = 0; first < rows; first += kRows) {
      const int64_t count = std::min(rows - first, kRows);
      selection_->map(samples + first, count, numbers);
      source_->will_read(numbers, count);
    }
  }

  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override {
    if (Status status = check_samples(request, length(), failed_row); !status.ok()) return status;
    int64_t numbers[kRows];
    auto** const places = reinterpret_cast<std::byte**>(request.scratch + own_);
    ReadRequest part = request;
    part.samples = numbers;
    part.fields = places;
    for (int64_t first = 0; first < request.rows; first += kRows) {
      part.rows = std::min(request.rows - first, kRows);
      selection_->map(request.samples + first, part.rows, numbers);
      for (size_t i = 0; i < fields().size(); ++i) {
        places[i] = request.fields[i] + static_cast<size_t>(first) * fields()[i].row_bytes();
      }
      *failed_row = 0;
      if (Status status = source_->read(part, failed_row); !status.ok()) {
        *failed_row += first;
        return status;
      }
    }
    return {};
  }

 private:
  std::shared_ptr<const Source> source_;
  std::shared_ptr<const Selection> selection_;
  size_t own_;  // how many bytes of scratch memory the inner source needs
};

}  // namespace

std::shared_ptr<const Selection> select_numbers(std::vector<int64_t> numbers, int64_t length) {
  if (numbers.empty()) throw Error(Code::kInvalidArgument, "[loader] the selection is empty: it has no sample");
  for (const int64_t number : numbers) {
    if (number >= 0 && number < length) continue;
    throw Error(Code::kOutOfRange, "[loader] indices has " + std::to_string(number) +
                                       ": the source has the samples 0 to " + std::to_string(length - 1));
  }
  return std::make_shared<Numbers>(std::move(numbers));
}

std::shared_ptr<const Selection> select_part(const SelectedPart& part, int64_t length) {
  if (part.begin < 0 || part.end < part.begin || part.end > length) {
    throw Error(Code::kOutOfRange, "[loader] a part of " + std::to_string(length) + " samples cannot go from " +
                                       std::to_string(part.begin) + " to " + std::to_string(part.end));
  }
  auto made = std::make_shared<PartOfAll>(part, length);
  if (made->length() == 0) throw Error(Code::kInvalidArgument, "[loader] the selection is empty: it has no sample");
  return made;
}

std::shared_ptr<const Source> select(std::shared_ptr<const Source> source, std::shared_ptr<const Selection> selection) {
  return std::make_shared<SelectedSource>(std::move(source), std::move(selection));
}

}  // namespace gradring
