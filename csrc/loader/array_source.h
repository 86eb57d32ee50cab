// ArraySource: arrays in memory as a source of the training loop, filled by the step's own lanes.
//
// It uses the same columns, the same Order and the same gather as a loader's ring, without threads of its own. Rows
// that lie in order and have the program's dtype are delivered where they are, without a copy. All other rows are
// gathered (and converted) into one of two slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/order.h"
#include "loader/sources/memory_column.h"
#include "ops/cast/cast.h"
#include "runtime/batch_source.h"

namespace gradring {

// A column, and the dtype that the program wants its rows in: float32, float64 or int64.
struct ArrayField {
  std::shared_ptr<const MemoryColumn> column;
  Dtype wanted = Dtype::kFloat32;
};

class ArraySource final : public BatchSource {
 public:
  // order.samples must be the length of each column. Throws Error if there are too many fields, if lengths differ, if a
  // conversion is unknown, if Order::check refuses the order, or if there is no memory for the slots.
  GRADRING_API ArraySource(const std::vector<ArrayField>& fields, const OrderOptions& order);
  GRADRING_API ~ArraySource() override;

  // Begins an epoch at a batch of this rank. No batch of an earlier epoch may be in use. Throws Error if start_batch is negative.
  GRADRING_API void begin(uint64_t epoch, int64_t start_batch);

  Status next(Batch* batch, Deadline deadline) noexcept override;
  void fill(const Lane& lane, const Batch& batch) noexcept override;
  void release(const Batch& batch) noexcept override;

  const Order& order() const noexcept { return order_; }
  GRADRING_API std::vector<size_t> bytes_of_rows() const;  // of each field, in the dtype that the program wants

 private:
  static constexpr int kSlots = 2;
  struct Field {
    std::shared_ptr<const MemoryColumn> column;
    Cast cast = nullptr;                  // null: the rows have the wanted dtype
    const std::byte* in_place = nullptr;  // the first row, if rows are delivered where they are
    int64_t row_bytes = 0;                // the size of a row of the wanted dtype
    size_t offset = 0;                    // where the field begins in a slot
  };

  std::byte* slot(uint32_t index) const noexcept { return slots_ + index * slot_bytes_; }

  std::vector<Field> fields_;
  Order order_;
  int64_t next_ = 0;              // the number of the next batch
  int64_t in_slot_[kSlots] = {};  // the number of the batch in each slot
  size_t slot_bytes_ = 0;
  std::byte* slots_ = nullptr;
};

}  // namespace gradring
