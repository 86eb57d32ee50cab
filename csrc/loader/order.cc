#include "loader/order.h"

#include <algorithm>

namespace gradring {

namespace {

int64_t rows_of_rank(const OrderOptions& o) noexcept {
  const int64_t left = std::max<int64_t>(o.samples - o.start, 0);
  const int64_t even = (left + o.world_size - 1) / o.world_size;
  if (o.pad) return o.drop_last ? even - even % o.batch_size : even;
  if (o.drop_last) return left / o.world_size / o.batch_size * o.batch_size;
  return left > o.rank ? (left - o.rank + o.world_size - 1) / o.world_size : 0;
}

long long wide(int64_t value) noexcept { return static_cast<long long>(value); }

}  // namespace

Order::Order(const OrderOptions& options) noexcept
    : options_(options),
      permutation_(static_cast<uint64_t>(options.samples), options.seed, options.epoch),
      rows_(rows_of_rank(options)) {}

Status Order::check(const OrderOptions& o) noexcept {
  if (o.samples < 0) return Status(Code::kInvalidArgument, "[loader] the source has %lld samples", wide(o.samples));
  if (o.batch_size < 1) {
    return Status(Code::kInvalidArgument, "[loader] batch_size is %lld: must be at least 1", wide(o.batch_size));
  }
  if (o.world_size < 1 || o.rank < 0 || o.rank >= o.world_size) {
    return Status(Code::kInvalidArgument, "[loader] rank is %lld and world_size %lld: rank must lie in [0, world_size)",
                  wide(o.rank), wide(o.world_size));
  }
  if (o.start < 0 || o.start > o.samples) {
    return Status(Code::kInvalidArgument, "[loader] start is %lld: must lie in [0, %lld]", wide(o.start),
                  wide(o.samples));
  }
  return {};
}

int64_t Order::rows(int64_t batch) const noexcept {
  return std::clamp<int64_t>(rows_ - batch * options_.batch_size, 0, options_.batch_size);
}

int64_t Order::position(int64_t batch) const noexcept {
  return options_.start + batch * options_.batch_size * options_.world_size + options_.rank;
}

int64_t Order::start_after(int64_t batches) const noexcept {
  // Compared before it is multiplied: no overflow.
  const int64_t each = options_.batch_size * options_.world_size;
  const int64_t left = options_.samples - options_.start;
  return batches > left / each ? options_.samples : options_.start + batches * each;
}

void Order::samples(int64_t batch, int64_t first, int64_t count, int64_t* out) const noexcept {
  const int64_t begin = position(batch) + first * options_.world_size;
  const int64_t step = options_.world_size;
  const int64_t n = options_.samples;
  if (step == 1 && begin + count <= n) {
    if (options_.shuffle) {
      permutation_.fill(static_cast<uint64_t>(begin), count, out);
    } else {
      for (int64_t i = 0; i < count; ++i) out[i] = begin + i;
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = (begin + i * step) % n;  // beyond n: padding
    out[i] = options_.shuffle ? static_cast<int64_t>(permutation_(static_cast<uint64_t>(position))) : position;
  }
}

}  // namespace gradring
