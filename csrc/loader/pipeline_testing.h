// Helpers for the tests of pipelines: a source that counts, and a consumer that checks what it reads.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "loader/pipeline.h"

namespace gradring::pipeline_testing {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A source whose sample s is {s, s * 7, ...} and a label s. Some samples fail, and some take long.
class Counting final : public Source {
 public:
  Counting(int64_t length, int64_t width)
      : length_(length), fields_{{"x", Dtype::kInt64, {width}}, {"y", Dtype::kInt32, {}}} {}
  int64_t length() const noexcept override { return length_; }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }
  size_t scratch_bytes() const noexcept override { return 128; }
  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override {
    std::memset(request.scratch, 1, 128);
    const int64_t width = fields_[0].shape[0];
    auto* x = reinterpret_cast<int64_t*>(request.fields[0]);
    auto* y = reinterpret_cast<int32_t*>(request.fields[1]);
    for (int64_t row = 0; row < request.rows; ++row) {
      const int64_t sample = request.samples[row];
      if (fails_every > 0 && sample % fails_every == fails_every - 1) {
        *failed_row = row;
        return Status(Code::kIo, "sample %lld is bad", static_cast<long long>(sample));
      }
      if (sleep_us > 0 && sample % slow_every == 0) usleep(static_cast<unsigned>(sleep_us));
      for (int64_t i = 0; i < width; ++i) x[row * width + i] = sample * 7 + i;
      y[row] = static_cast<int32_t>(sample);
    }
    return {};
  }
  int64_t fails_every = 0;
  int sleep_us = 0;
  int64_t slow_every = 1;

 private:
  int64_t length_;
  std::vector<FieldSpec> fields_;
};

// How many workers there are, how many are active (-1: all), whether the consumer helps, and the parts of a batch.
struct Crew {
  uint32_t workers = 0;
  int active = -1;
  bool help = false;
  uint32_t parts = 1;
};

inline PipelineOptions options(int64_t batch, const Crew& crew, uint32_t cells, size_t budget = 0) {
  PipelineOptions o;
  o.batch_size = batch;
  o.workers = crew.workers;
  o.active = crew.active < 0 ? crew.workers : static_cast<uint32_t>(crew.active);
  o.help = crew.help;
  o.parts = crew.parts;
  o.cells = cells;
  o.memory_budget = budget;
  return o;
}

// Returns the batch's samples, and checks that the rows are theirs.
inline std::vector<int64_t> check_batch(const Pipeline& pipeline, const Delivery& got) {
  const std::byte* slot = pipeline.slots()->data(got.slot);
  const auto* samples = reinterpret_cast<const int64_t*>(slot);
  const auto* x = reinterpret_cast<const int64_t*>(slot + pipeline.layout().offsets[0]);
  const auto* y = reinterpret_cast<const int32_t*>(slot + pipeline.layout().offsets[1]);
  const auto width = static_cast<int64_t>(pipeline.layout().row_bytes[0] / 8);
  bool right = true;
  for (int64_t row = 0; row < got.rows; ++row) {
    for (int64_t i = 0; i < width; ++i) right = right && x[row * width + i] == samples[row] * 7 + i;
    right = right && y[row] == samples[row];
  }
  REQUIRE(right);
  return {samples, samples + got.rows};
}

// Returns the samples of a pass, in order. The pass ends as `how` says, or, without it, as it should.
inline std::vector<int64_t> read_all(Pipeline& pipeline, Delivered* how = nullptr) {
  std::vector<int64_t> order;
  for (;;) {
    Delivery got;
    const Delivered result = pipeline.next(&got, deadline_in(seconds(20)));
    if (result != Delivered::kBatch) {
      if (how)
        *how = result;
      else
        REQUIRE(result == Delivered::kEnd);
      return order;
    }
    for (int64_t sample : check_batch(pipeline, got)) order.push_back(sample);
    pipeline.slots()->give(got.slot);
  }
}

}  // namespace gradring::pipeline_testing
