#include "loader/array_source.h"

#include <cstdlib>
#include <string>

#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring {

ArraySource::ArraySource(std::vector<ArrayField> fields, int64_t samples, const ArrayOrder& order)
    : samples_(samples),
      order_(order),
      permutation_(static_cast<uint64_t>(samples), order.seed, order.epoch),
      position_(order.start_batch * order.batch_size) {
  if (order.batch_size < 1) {
    throw Error(Code::kInvalidArgument,
                "[loader] batch_size is " + std::to_string(order.batch_size) + ": must be at least 1");
  }
  if (order.start_batch < 0) throw Error(Code::kInvalidArgument, "[loader] start_batch is negative");
  if (fields.empty() || fields.size() > Batch::kMaxFields) {
    throw Error(Code::kInvalidArgument, "[loader] a source has 1 to " + std::to_string(Batch::kMaxFields) +
                                            " arrays, not " + std::to_string(fields.size()));
  }
  const int64_t largest = order.batch_size < samples ? order.batch_size : (samples > 0 ? samples : 1);
  slot_bytes_ = round_up(static_cast<size_t>(largest) * sizeof(int64_t));
  for (const ArrayField& field : fields) {
    Column column;
    column.array = field;
    column.cast = find_cast(field.wanted, field.dtype);
    if (column.cast == nullptr) {
      throw Error(Code::kInvalidArgument, std::string("[loader] cannot convert ") + dtype_name(field.dtype) + " to " +
                                              dtype_name(field.wanted));
    }
    const auto row_bytes = field.row_elements * static_cast<int64_t>(size_of(field.dtype));
    const bool aligned_data = reinterpret_cast<uintptr_t>(field.data) % size_of(field.dtype) == 0;
    column.in_place = !order.shuffle && field.dtype == field.wanted && field.stride_bytes == row_bytes && aligned_data;
    column.offset = slot_bytes_;
    if (!column.in_place) {
      slot_bytes_ += round_up(static_cast<size_t>(largest * field.row_elements) * size_of(field.wanted));
    }
    columns_.push_back(column);
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, slot_bytes_ * kSlots) != 0) {
    throw Error(Code::kOutOfMemory,
                "[loader] cannot allocate " + std::to_string(slot_bytes_ * kSlots) + " bytes for batches");
  }
  slots_ = static_cast<std::byte*>(memory);
}

ArraySource::~ArraySource() { std::free(slots_); }

int64_t ArraySource::batches() const noexcept {
  return (samples_ + (order_.drop_last ? 0 : order_.batch_size - 1)) / order_.batch_size;
}

Status ArraySource::next(Batch* batch, Deadline) noexcept {
  const int64_t left = samples_ - position_;
  const int64_t rows = left < order_.batch_size ? (order_.drop_last || left < 0 ? 0 : left) : order_.batch_size;
  batch->rows = rows;
  batch->position = position_;
  batch->slot = turn_;
  batch->samples = reinterpret_cast<const int64_t*>(slot(turn_));
  for (size_t i = 0; i < columns_.size(); ++i) {
    const Column& column = columns_[i];
    batch->fields[i] = column.in_place
                           ? static_cast<const std::byte*>(column.array.data) + position_ * column.array.stride_bytes
                           : slot(turn_) + column.offset;
  }
  position_ += rows;
  turn_ = (turn_ + 1) % kSlots;
  return {};
}

void ArraySource::fill(const Lane& lane, const Batch& batch) noexcept {
  const Range rows = split(lane, batch.rows);
  if (rows.begin == rows.end) return;
  std::byte* to = slot(batch.slot);
  auto* samples = reinterpret_cast<int64_t*>(to);
  const int64_t first = batch.position + rows.begin;
  if (order_.shuffle) {
    permutation_.fill(static_cast<uint64_t>(first), rows.end - rows.begin, samples + rows.begin);
  } else {
    for (int64_t row = rows.begin; row < rows.end; ++row) samples[row] = batch.position + row;
  }
  for (const Column& column : columns_) {
    if (!column.in_place) gather(column, samples, rows, to + column.offset);
  }
}

void ArraySource::gather(const Column& column, const int64_t* samples, Range rows, std::byte* to) const noexcept {
  const ArrayField& array = column.array;
  const auto* data = static_cast<const std::byte*>(array.data);
  const int64_t out_bytes = array.row_elements * static_cast<int64_t>(size_of(array.wanted));
  const int64_t in_bytes = array.row_elements * static_cast<int64_t>(size_of(array.dtype));
  // Shuffled rows defeat the hardware's prefetcher at each row's start: ask for a few rows ahead.
  constexpr int64_t kAhead = 4;
  const int64_t prefetched = in_bytes < 1024 ? in_bytes : 1024;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    if (row + kAhead < rows.end) {
      const std::byte* soon = data + samples[row + kAhead] * array.stride_bytes;
      for (int64_t byte = 0; byte < prefetched; byte += 64) __builtin_prefetch(soon + byte, 0, 1);
    }
    column.cast(to + row * out_bytes, data + samples[row] * array.stride_bytes, array.row_elements);
  }
}

void ArraySource::release(const Batch&) noexcept {}

}  // namespace gradring
