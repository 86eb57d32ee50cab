#include "loader/array_source.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "loader/gather.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring {

ArraySource::ArraySource(const std::vector<ArrayField>& fields, const OrderOptions& order) {
  throw_if(Order::check(order));
  if (fields.empty() || fields.size() > Batch::kMaxFields) {
    throw Error(Code::kInvalidArgument, "[loader] a source has 1 to " + std::to_string(Batch::kMaxFields) +
                                            " arrays, not " + std::to_string(fields.size()));
  }
  // An epoch may begin with any batch, and the blocks of a rank have different numbers of rows: a slot holds the largest.
  const int64_t share = order.samples / order.world_size + (order.samples % order.world_size != 0);
  const auto rows = static_cast<size_t>(std::max<int64_t>(std::min(order.batch_size, share), 1));
  order_ = Order(order);
  const bool in_order = !order.shuffle && order.world_size == 1;
  slot_bytes_ = round_up(rows * sizeof(int64_t));
  for (const ArrayField& given : fields) {
    const FieldSpec& spec = given.column->spec();
    if (given.column->length() != order.samples) {
      throw Error(Code::kInvalidArgument, "[loader] arrays must have the same first dimension: one has " +
                                              std::to_string(given.column->length()) + " rows, expected " +
                                              std::to_string(order.samples));
    }
    Field field;
    field.column = given.column;
    field.row_bytes = spec.elements() * static_cast<int64_t>(size_of(given.wanted));
    const Cast cast = find_cast(given.wanted, spec.dtype);
    if (cast == nullptr) {
      throw Error(Code::kInvalidArgument,
                  std::string("[loader] cannot convert ") + dtype_name(spec.dtype) + " to " + dtype_name(given.wanted));
    }
    if (spec.dtype != given.wanted) field.cast = cast;
    RowAddresses where;
    if (!given.column->begin(nullptr, 0, &where)) {
      throw Error(Code::kInvalidArgument, "[loader] an array's rows must be C-contiguous and of native byte order");
    }
    if (in_order && field.cast == nullptr && where.stride == field.row_bytes &&
        reinterpret_cast<uintptr_t>(where.base) % size_of(spec.dtype) == 0) {
      field.in_place = where.base;
    }
    field.offset = slot_bytes_;
    if (field.in_place == nullptr) slot_bytes_ += round_up(rows * static_cast<size_t>(field.row_bytes));
    fields_.push_back(std::move(field));
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, slot_bytes_ * kSlots) != 0) {
    throw Error(Code::kOutOfMemory,
                "[loader] cannot allocate " + std::to_string(slot_bytes_ * kSlots) + " bytes for batches");
  }
  slots_ = static_cast<std::byte*>(memory);
}

ArraySource::~ArraySource() { std::free(slots_); }

void ArraySource::begin(uint64_t epoch, int64_t start_batch) {
  if (start_batch < 0) throw Error(Code::kInvalidArgument, "[loader] start_batch is negative");
  OrderOptions options = order_.options();
  options.epoch = epoch;
  options.start = 0;
  options.start = Order(options).start_after(start_batch);
  order_ = Order(options);
  next_ = 0;
}

Status ArraySource::next(Batch* batch, Deadline) noexcept {
  const auto turn = static_cast<uint32_t>(next_ % kSlots);
  in_slot_[turn] = next_;
  batch->rows = order_.rows(next_);
  batch->whole_rows = order_.options().blocks ? order_.whole_rows(next_) : 0;
  batch->position = order_.position(next_);
  batch->slot = turn;
  batch->samples = reinterpret_cast<const int64_t*>(slot(turn));
  for (size_t i = 0; i < fields_.size(); ++i) {
    const Field& field = fields_[i];
    batch->fields[i] = field.in_place ? field.in_place + batch->position * field.row_bytes : slot(turn) + field.offset;
  }
  if (batch->rows > 0 || batch->whole_rows > 0) ++next_;  // a rank's block of a batch may be empty
  return {};
}

void ArraySource::fill(const Lane& lane, const Batch& batch) noexcept {
  Range rows = split(lane, batch.rows);
  rows.begin += batch.first, rows.end += batch.first;
  if (rows.begin == rows.end) return;
  std::byte* to = slot(batch.slot);
  ReadRequest request;
  auto* samples = reinterpret_cast<int64_t*>(to) + rows.begin;
  request.samples = samples;
  request.rows = rows.end - rows.begin;
  order_.samples(in_slot_[batch.slot], rows.begin, request.rows, samples);
  for (const Field& field : fields_) {
    if (field.in_place) continue;
    gather_cast(*field.column, field.cast, field.row_bytes, request, to + field.offset + rows.begin * field.row_bytes);
  }
}

std::vector<size_t> ArraySource::bytes_of_rows() const {
  std::vector<size_t> bytes;
  for (const Field& field : fields_) bytes.push_back(static_cast<size_t>(field.row_bytes));
  return bytes;
}

void ArraySource::release(const Batch&) noexcept {}

}  // namespace gradring
