// LoaderFeed: one pass over a loader's pipeline as the training loop reads it.
#pragma once

#include <memory>
#include <utility>

#include "bindings/feed.h"
#include "bindings/loader_pipeline.h"

namespace gradring {

class LoaderFeed final : public PyFeed, private BatchSource {
 public:
  LoaderFeed(std::shared_ptr<LoaderPipeline> pipeline, py::object reading)
      : pipeline_(std::move(pipeline)), reading_(std::move(reading)) {
    if (pipeline_->native().layout().offsets.size() > Batch::kMaxFields) {
      throw Error(Code::kInvalidArgument, "[loader] a batch for training has at most 8 fields");
    }
    use(this);
  }
  // End the pass before the Pass is freed, because another thread may then begin the next pass over the same pipeline.
  ~LoaderFeed() override {
    drop_waiting();
    pipeline_->native().stop();
  }

 private:
  const std::vector<size_t>& bytes_of_rows() const override { return pipeline_->native().layout().row_bytes; }

  // The engine calls these functions with the GIL released.
  Status next(Batch* batch, Deadline deadline) noexcept override {
    Delivery got;
    const Status status = pipeline_->next_natively(&got, reading_.ptr(), deadline);
    if (!status.ok()) return status;
    batch->rows = got.rows;
    batch->position = got.position;
    batch->slot = got.slot;
    if (got.rows == 0) return {};
    const std::byte* slot = pipeline_->native().slots()->data(got.slot);
    const SlotLayout& layout = pipeline_->native().layout();
    batch->samples = reinterpret_cast<const int64_t*>(slot);
    for (size_t i = 0; i < layout.offsets.size(); ++i) batch->fields[i] = slot + layout.offsets[i];
    return {};
  }
  void fill(const Lane&, const Batch&) noexcept override {}
  void release(const Batch& batch) noexcept override { pipeline_->native().slots()->give(batch.slot); }

  std::shared_ptr<LoaderPipeline> pipeline_;
  py::object reading_;  // the Pass
};

}  // namespace gradring
