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

  // Moves the exception from this thread, which may be any of an engine's, to where the caller's thread finds it.
  void keep_error() noexcept {
    with_python([this] {
      PyObject* const last = error_;
      error_ = take_held_error().release().ptr();
      Py_XDECREF(last);
    });
  }

  std::shared_ptr<LoaderPipeline> pipeline_;
  py::object reading_;         // the Pass
  PyObject* error_ = nullptr;  // what the Pass raised last, until take_error; the GIL guards it
};

}  // namespace gradring
