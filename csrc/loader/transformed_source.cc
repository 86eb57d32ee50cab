// A source whose rows are transformed: fused with the gather where the source is made of columns.
#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "loader/column_source.h"
#include "loader/gather.h"
#include "loader/transform.h"
#include "loader/transforms/plan.h"
#include "runtime/round_up.h"

namespace gradring {

namespace {

// How many bytes of rows a source without columns writes before they are transformed: half of a second-level cache.
constexpr size_t kStageBytes = 256 << 10;

class TransformedSource final : public Source {
 public:
  TransformedSource(std::shared_ptr<const Source> source, std::vector<std::vector<TransformStep>> transforms)
      : source_(std::move(source)), columns_(dynamic_cast<const ColumnSource*>(source_.get())) {
    const auto& inputs = source_->fields();
    if (transforms.size() != inputs.size()) {
      throw Error(Code::kInvalidArgument, "[loader] transforms for " + std::to_string(transforms.size()) +
                                              " fields, but the source has " + std::to_string(inputs.size()));
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      plans_.push_back(transforms[i].empty()
                           ? nullptr
                           : std::make_unique<const RowPlan>(inputs[i], transforms[i], static_cast<int>(i)));
      first_part_.push_back(i == 0 ? source_->parts().size()
                                   : first_part_[i - 1] + (plans_[i - 1] ? plans_[i - 1]->names().size() : 0));
      fields_.push_back(plans_[i] ? plans_[i]->output() : inputs[i]);
      if (columns_ != nullptr) {
        plan_bytes_ = std::max(plan_bytes_, gather_scratch(*columns_->columns()[i], plans_[i].get()));
      } else if (plans_[i]) {
        plan_bytes_ = std::max(plan_bytes_, plans_[i]->scratch_bytes());
        staged_row_bytes_ += inputs[i].row_bytes();
        staged_fields_ += 1;
      }
    }
    plan_bytes_ = round_up(plan_bytes_);
    stage_rows_ = static_cast<int64_t>(std::max<size_t>(1, kStageBytes / std::max<size_t>(1, staged_row_bytes_)));
  }

  int64_t length() const noexcept override { return source_->length(); }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }
  size_t scratch_bytes() const noexcept override {
    return plan_bytes_ + round_up(fields_.size() * sizeof(std::byte*)) +
           static_cast<size_t>(stage_rows_) * staged_row_bytes_ + 64 * staged_fields_ + source_->scratch_bytes();
  }
  std::vector<std::string> parts() const override {
    std::vector<std::string> names = source_->parts();
    for (size_t i = 0; i < plans_.size(); ++i) {
      if (!plans_[i]) continue;
      for (const std::string& name : plans_[i]->names()) names.push_back(name + " of field " + fields_[i].name);
    }
    names.resize(std::min(names.size(), PartTimes::kMost));
    return names;
  }
  void number(int64_t* samples, int64_t rows) const noexcept override { source_->number(samples, rows); }
  void will_read(const int64_t* samples, int64_t rows) const noexcept override { source_->will_read(samples, rows); }

  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override {
    if (columns_ == nullptr) return read_staged(request, failed_row);
    if (Status status = check_samples(request, length(), failed_row); !status.ok()) return status;
    for (size_t i = 0; i < plans_.size(); ++i) {
      Status status =
          gather(*columns_->columns()[i], plans_[i].get(), request, request.fields[i], failed_row, times(request, i));
      if (!status.ok()) return status;
    }
    return {};
  }

 private:
  // Rows of fields without a plan go straight into the batch; all others go through scratch memory, a few at a time.
  Status read_staged(const ReadRequest& request, int64_t* failed_row) const noexcept {
    auto** places = reinterpret_cast<std::byte**>(request.scratch + plan_bytes_);
    std::byte* stage = request.scratch + plan_bytes_ + round_up(fields_.size() * sizeof(std::byte*));
    for (int64_t first = 0; first < request.rows; first += stage_rows_) {
      ReadRequest part = request;
      part.rows = std::min(stage_rows_, request.rows - first);
      part.samples = request.samples + first;
      part.fields = places;
      std::byte* free = stage;
      for (size_t i = 0; i < plans_.size(); ++i) {
        if (plans_[i]) {
          places[i] = free;
          free += round_up(static_cast<size_t>(part.rows) * source_->fields()[i].row_bytes());
        } else {
          places[i] = request.fields[i] + static_cast<size_t>(first) * fields_[i].row_bytes();
        }
      }
      part.scratch = free;
      int64_t failed = 0;
      Status status = source_->read(part, &failed);
      if (status.ok()) status = run_plans(request, part, first, &failed);
      if (!status.ok()) {
        *failed_row = first + failed;
        return status;
      }
    }
    return {};
  }

  Status run_plans(const ReadRequest& request, const ReadRequest& part, int64_t first, int64_t* failed) const noexcept {
    for (size_t i = 0; i < plans_.size(); ++i) {
      if (!plans_[i]) continue;
      uint64_t* stage_ns = times(request, i);
      const size_t in = source_->fields()[i].row_bytes();
      const size_t out = fields_[i].row_bytes();
      for (int64_t row = 0; row < part.rows; ++row) {
        const RowKey key{request.seed, request.epoch, part.samples[row], request.stop};
        const std::byte* from = part.fields[i] + static_cast<size_t>(row) * in;
        std::byte* to = request.fields[i] + static_cast<size_t>(first + row) * out;
        if (Status status = plans_[i]->run(from, to, key, request.scratch, stage_ns); !status.ok()) {
          *failed = row;
          return status;
        }
      }
    }
    return {};
  }

  // Where the stages of field i add their time. Null if this read is not timed, or if PartTimes has no room for the field.
  uint64_t* times(const ReadRequest& request, size_t i) const noexcept {
    if (request.times == nullptr || !plans_[i]) return nullptr;
    const size_t end = first_part_[i] + plans_[i]->names().size();
    return end <= PartTimes::kMost ? request.times->ns + first_part_[i] : nullptr;
  }

  std::shared_ptr<const Source> source_;
  const ColumnSource* columns_;
  std::vector<size_t> first_part_;  // where the stages of each field's plan begin in parts()
  std::vector<std::unique_ptr<const RowPlan>> plans_;
  std::vector<FieldSpec> fields_;
  size_t plan_bytes_ = 0;
  size_t staged_row_bytes_ = 0;
  size_t staged_fields_ = 0;
  int64_t stage_rows_ = 1;
};

}  // namespace

std::shared_ptr<const Source> transform_source(std::shared_ptr<const Source> source,
                                               std::vector<std::vector<TransformStep>> transforms) {
  return std::make_shared<TransformedSource>(std::move(source), std::move(transforms));
}

}  // namespace gradring
