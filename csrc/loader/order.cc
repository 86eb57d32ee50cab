#include "loader/order.h"

#include <algorithm>

namespace gradring {

namespace {

// All arithmetic here must hold for as many samples, ranks and rows per batch as int64 can say: no sum or product may
// leave its range.
int64_t divide_up(int64_t a, int64_t b) noexcept { return a / b + (a % b != 0); }

// How many rows a batch of all ranks together has; no more than int64 can say, as then there is only one batch.
int64_t rows_of_all(const OrderOptions& o) noexcept {
  int64_t rows;
  return __builtin_mul_overflow(o.batch_size, o.world_size, &rows) ? INT64_MAX : rows;
}

// Where the block of a rank begins among n rows.
int64_t block_begin(const OrderOptions& o, int64_t n, int64_t rank) noexcept {
  return static_cast<int64_t>(static_cast<__int128>(n) * rank / o.world_size);
}

int64_t rows_of_rank(const OrderOptions& o) noexcept {
  const int64_t left = std::max<int64_t>(o.samples - o.start, 0);
  const int64_t even = divide_up(left, o.world_size);
  if (o.pad) return o.drop_last ? even - even % o.batch_size : even;
  if (o.drop_last) return left / o.world_size / o.batch_size * o.batch_size;
  return left > o.rank ? divide_up(left - o.rank, o.world_size) : 0;
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
  if (o.blocks && o.pad) return Status(Code::kInvalidArgument, "[loader] blocks of a batch are not padded");
  return {};
}

int64_t Order::batches() const noexcept {
  if (!options_.blocks) return divide_up(rows_, options_.batch_size);
  const int64_t left = std::max<int64_t>(options_.samples - options_.start, 0), all = rows_of_all(options_);
  return options_.drop_last ? left / all : divide_up(left, all);
}

int64_t Order::whole_rows(int64_t batch) const noexcept {
  if (batch < 0 || batch >= batches()) return 0;
  const int64_t all = rows_of_all(options_);
  return std::min(all, options_.samples - options_.start - batch * all);
}

int64_t Order::rows(int64_t batch) const noexcept {
  if (batch >= batches()) return 0;
  if (options_.blocks) {
    const int64_t n = whole_rows(batch);
    return block_begin(options_, n, options_.rank + 1) - block_begin(options_, n, options_.rank);
  }
  return std::clamp<int64_t>(rows_ - batch * options_.batch_size, 0, options_.batch_size);
}

int64_t Order::position(int64_t batch) const noexcept {
  if (options_.blocks) return start_after(batch) + block_begin(options_, whole_rows(batch), options_.rank);
  const auto wide = [](int64_t value) { return static_cast<uint64_t>(value); };
  return static_cast<int64_t>(
      wide(options_.start) + wide(batch) * wide(options_.batch_size) * wide(options_.world_size) + wide(options_.rank));
}

int64_t Order::start_after(int64_t batches) const noexcept {
  int64_t each;
  int64_t taken;
  int64_t start;
  if (__builtin_mul_overflow(options_.batch_size, options_.world_size, &each) ||
      __builtin_mul_overflow(each, batches, &taken) || __builtin_add_overflow(options_.start, taken, &start)) {
    return batches > 0 ? options_.samples : options_.start;
  }
  return std::min(start, options_.samples);
}

void Order::samples(int64_t batch, int64_t first, int64_t count, int64_t* out) const noexcept {
  // Below 2^64: the last position lies less than one world size beyond the samples.
  const auto step = options_.blocks ? 1 : static_cast<uint64_t>(options_.world_size);
  const auto n = static_cast<uint64_t>(options_.samples);
  const uint64_t begin = static_cast<uint64_t>(position(batch)) + static_cast<uint64_t>(first) * step;
  if (step == 1 && begin + static_cast<uint64_t>(count) <= n) {
    if (options_.shuffle) {
      permutation_.fill(begin, count, out);
    } else {
      for (int64_t i = 0; i < count; ++i) out[i] = static_cast<int64_t>(begin) + i;
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t position = (begin + static_cast<uint64_t>(i) * step) % n;  // beyond n: padding
    out[i] = static_cast<int64_t>(options_.shuffle ? permutation_(position) : position);
  }
}

}  // namespace gradring
