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
    Py_XDECREF(error_);
  }
  py::object take_error() override { return py::reinterpret_steal<py::object>(std::exchange(error_, nullptr)); }

 private:
  const std::vector<size_t>& bytes_of_rows() const override { return pipeline_->native().layout().row_bytes; }

  // The engine calls these functions with the GIL released.
  Status next(Batch* batch, Deadline deadline) noexcept override {
    Delivery got;
    const Status status = pipeline_->next_natively(&got, reading_.ptr(), deadline);
    if (is_python(status.code())) keep_error();
    if (!status.ok()) return status;
    batch->rows = got.rows;
    batch->whole_rows = 0;
    batch->position = got.position;
    batch->slot = got.slot;
    const Order& order = pipeline_->native().order();
    const bool blocks = order.options().blocks;
    if (got.rows == 0) {
      // A pipeline passes over batches without rows. With blocks this rank's part of the last batch may have none, and the rank
      // takes part in the step.
      const int64_t last = order.batches() - 1;
      if (!blocks || told_end_ || last < 0 || order.rows(last) > 0) return {};
      told_end_ = true;
      batch->whole_rows = order.whole_rows(last);
      batch->position = order.position(last);
      batch->slot = kNoSlot;
      return {};
    }
    batch->whole_rows = blocks ? order.whole_rows(got.batch) : 0;
    const std::byte* slot = pipeline_->native().slots()->data(got.slot);
    const SlotLayout& layout = pipeline_->native().layout();
    batch->samples = reinterpret_cast<const int64_t*>(slot);
    for (size_t i = 0; i < layout.offsets.size(); ++i) batch->fields[i] = slot + layout.offsets[i];
    return {};
  }
  void fill(const Lane&, const Batch&) noexcept override {}
  void release(const Batch& batch) noexcept override {
    if (batch.slot != kNoSlot) pipeline_->native().slots()->give(batch.slot);
  }

  // Moves the exception from this thread, which may be any of an engine's, to where the caller's thread finds it.
  void keep_error() noexcept {
    with_python([this] {
      PyObject* const last = error_;
      error_ = take_held_error().release().ptr();
      Py_XDECREF(last);
    });
  }

  std::shared_ptr<LoaderPipeline> pipeline_;
  py::object reading_;  // the Pass
  static constexpr uint32_t kNoSlot = UINT32_MAX;
  bool told_end_ = false;
  PyObject* error_ = nullptr;  // what the Pass raised last, until take_error; the GIL guards it
};

}  // namespace gradring
