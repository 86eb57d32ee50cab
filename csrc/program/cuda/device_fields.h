// DeviceFields: a source of batches that lie in a device's memory already, as parts of whole arrays, in their order. The engine
// copies them from there to its slots; no byte of them goes through the host.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/batch_source.h"

namespace gradring {

class DeviceFields final : public BatchSource {
 public:
  struct Field {
    const std::byte* data = nullptr;  // the rows, without gaps
    size_t row_bytes = 0;
  };

  // At most Batch::kMaxFields fields of so many samples each.
  DeviceFields(std::vector<Field> fields, int64_t samples, int64_t batch_size) noexcept
      : fields_(std::move(fields)), samples_(samples), batch_size_(batch_size) {}

  Status next(Batch* batch, Deadline) noexcept override {
    *batch = {};
    batch->position = at_;
    batch->rows = std::min(batch_size_, samples_ - at_);
    for (size_t i = 0; i < fields_.size(); ++i) {
      batch->fields[i] = fields_[i].data + static_cast<size_t>(at_) * fields_[i].row_bytes;
    }
    at_ += batch->rows;
    return {};
  }
  void fill(const Lane&, const Batch&) noexcept override {}
  void release(const Batch&) noexcept override {}

 private:
  std::vector<Field> fields_;
  int64_t samples_, batch_size_, at_ = 0;
};

inline bool is_on_device(const BatchSource* source) noexcept {
  return dynamic_cast<const DeviceFields*>(source) != nullptr;
}

}  // namespace gradring
