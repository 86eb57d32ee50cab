// ArraySource: batches out of arrays in memory, in order or shuffled.
//
// Rows that lie in order and have the program's dtype are handed out where they are, without a copy; anything else
// is gathered (and converted) into one of two slots by all lanes of the step's team.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/permutation.h"
#include "ops/cast/cast.h"
#include "runtime/batch_source.h"

namespace gradring {

// One array, its first axis the samples; rows are contiguous, stride bytes apart. The caller keeps it alive.
struct ArrayField {
  const void* data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t row_elements = 1;
  int64_t stride_bytes = 0;
  Dtype wanted = Dtype::kFloat32;  // float32, float64 or int64
};

struct ArrayOrder {
  int64_t batch_size = 1;
  bool shuffle = false;
  bool drop_last = false;
  uint64_t seed = 0;
  uint64_t epoch = 0;
  int64_t start_batch = 0;
};

class GRADRING_API ArraySource final : public BatchSource {
 public:
  // Throws Error: too many fields, an unknown conversion, a batch size below 1, no memory for the slots.
  ArraySource(std::vector<ArrayField> fields, int64_t samples, const ArrayOrder& order);
  ~ArraySource() override;

  Status next(Batch* batch, Deadline deadline) noexcept override;
  void fill(const Lane& lane, const Batch& batch) noexcept override;
  void release(const Batch& batch) noexcept override;

  // Batches of one whole epoch.
  int64_t batches() const noexcept;

 private:
  static constexpr int kSlots = 2;
  struct Column {
    ArrayField array;
    Cast cast = nullptr;
    bool in_place = false;
    size_t offset = 0;  // in a slot
  };

  std::byte* slot(uint32_t index) const noexcept { return slots_ + index * slot_bytes_; }
  void gather(const Column& column, const int64_t* samples, Range rows, std::byte* to) const noexcept;

  std::vector<Column> columns_;
  int64_t samples_;
  ArrayOrder order_;
  Permutation permutation_;
  int64_t position_;
  uint32_t turn_ = 0;
  size_t slot_bytes_ = 0;
  std::byte* slots_ = nullptr;
};

}  // namespace gradring
