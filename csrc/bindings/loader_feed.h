// LoaderFeed: a loader's run as a source of batches for the training loop.
#pragma once

#include <memory>

#include "bindings/batch_iterator.h"
#include "runtime/batch_source.h"

namespace gradring {

class LoaderFeed final : public BatchSource {
 public:
  LoaderFeed(std::shared_ptr<LoaderRun> run, py::object watcher) : run_(std::move(run)), watcher_(std::move(watcher)) {
    if (run_->pipeline().layout().offsets.size() > Batch::kMaxFields) {
      throw Error(Code::kInvalidArgument, "[loader] a batch for training has at most 8 fields");
    }
  }
  ~LoaderFeed() override { run_->pipeline().stop(); }

  // Called with the GIL released.
  Status next(Batch* batch, Deadline deadline) noexcept override {
    Delivery got;
    const Status status = run_->next_natively(&got, watcher_.ptr(), deadline);
    if (!status.ok()) return status;
    batch->rows = got.rows;
    batch->position = got.position;
    batch->slot = got.slot;
    if (got.rows == 0) return {};
    const std::byte* slot = run_->pipeline().slots()->data(got.slot);
    const SlotLayout& layout = run_->pipeline().layout();
    batch->samples = reinterpret_cast<const int64_t*>(slot);
    for (size_t i = 0; i < layout.offsets.size(); ++i) batch->fields[i] = slot + layout.offsets[i];
    return {};
  }
  void fill(const Lane&, const Batch&) noexcept override {}
  void release(const Batch& batch) noexcept override { run_->pipeline().slots()->give(batch.slot); }

 private:
  std::shared_ptr<LoaderRun> run_;
  py::object watcher_;
};

}  // namespace gradring
