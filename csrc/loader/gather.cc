#include "loader/gather.h"

#include <algorithm>
#include <cstring>

#include "loader/copy_row.h"
#include "runtime/round_up.h"

#define GRADRING_ALWAYS_INLINE inline __attribute__((always_inline))

namespace gradring {

namespace {

// The hardware's prefetcher cannot know where the next row of a shuffled order starts. So the loop prefetches the start
// of a row while it works on the rows before: kAheadBytes ahead, and at most kPrefetchOfRow of each row.
constexpr int64_t kAheadBytes = 4096;
constexpr int64_t kPrefetchOfRow = 2048;
// If a column's rows cannot be read where they lie, a plan gets them in blocks of this size: half of a first-level cache.
constexpr int64_t kStageBytes = 16 << 10;

int64_t stage_rows(const Column& column) noexcept {
  const auto row = static_cast<int64_t>(column.spec().row_bytes());
  return std::max<int64_t>(1, kStageBytes / std::max<int64_t>(1, row));
}

class Prefetcher {
 public:
  Prefetcher(const RowAddresses& rows, int64_t row_bytes, const ReadRequest& request) noexcept
      : rows_(rows),
        request_(request),
        bytes_(std::min(row_bytes, kPrefetchOfRow)),
        ahead_(std::clamp<int64_t>(kAheadBytes / std::max<int64_t>(1, row_bytes), 1, 32)) {
    for (int64_t row = 0; row < std::min(ahead_, request.rows); ++row) fetch(row);
  }
  GRADRING_ALWAYS_INLINE void at(int64_t row) const noexcept {
    if (row + ahead_ < request_.rows) fetch(row + ahead_);
  }

 private:
  // The loop prefetches several lines per turn, because one line per turn takes more instructions than the copy. The
  // function is always inline, because GCC believes that a function that only prefetches has no effect, and drops the
  // call.
  GRADRING_ALWAYS_INLINE void fetch(int64_t row) const noexcept {
    constexpr auto kLine = static_cast<int64_t>(kCacheLine);
    const std::byte* line = rows_.base + request_.samples[row] * rows_.stride;
    const std::byte* const end = line + bytes_;
    for (; end - line >= 8 * kLine; line += 8 * kLine) {
      __builtin_prefetch(line);
      __builtin_prefetch(line + kLine);
      __builtin_prefetch(line + 2 * kLine);
      __builtin_prefetch(line + 3 * kLine);
      __builtin_prefetch(line + 4 * kLine);
      __builtin_prefetch(line + 5 * kLine);
      __builtin_prefetch(line + 6 * kLine);
      __builtin_prefetch(line + 7 * kLine);
    }
    for (; line < end; line += kLine) __builtin_prefetch(line);
  }

  RowAddresses rows_;
  const ReadRequest& request_;
  int64_t bytes_;
  int64_t ahead_;
};

template <class Word>
void copy_words(const RowAddresses& rows, const ReadRequest& request, std::byte* to) noexcept {
  for (int64_t row = 0; row < request.rows; ++row) {
    Word word;
    std::memcpy(&word, rows.base + request.samples[row] * rows.stride, sizeof word);
    std::memcpy(to + row * static_cast<int64_t>(sizeof word), &word, sizeof word);
  }
}

void copy_rows(const RowAddresses& rows, const ReadRequest& request, int64_t row_bytes, std::byte* to) noexcept {
  switch (row_bytes) {  // labels: a call of memcpy per row would cost more than the copy
    case 0: return;
    case 1: return copy_words<uint8_t>(rows, request, to);
    case 2: return copy_words<uint16_t>(rows, request, to);
    case 4: return copy_words<uint32_t>(rows, request, to);
    case 8: return copy_words<uint64_t>(rows, request, to);
    default: break;
  }
  const Prefetcher prefetcher(rows, row_bytes, request);
  for (int64_t row = 0; row < request.rows; ++row) {
    prefetcher.at(row);
    copy_row(to + row * row_bytes, rows.base + request.samples[row] * rows.stride, static_cast<size_t>(row_bytes),
             request.streaming);
  }
}

Status plan_rows(const RowAddresses& rows, const RowPlan& plan, const ReadRequest& request, int64_t row_bytes,
                 std::byte* to, std::byte* scratch, int64_t* failed_row, uint64_t* stage_ns) noexcept {
  const Prefetcher prefetcher(rows, row_bytes, request);
  const auto out_bytes = static_cast<int64_t>(plan.output().row_bytes());
  for (int64_t row = 0; row < request.rows; ++row) {
    prefetcher.at(row);
    const RowKey key{request.seed, request.epoch, request.samples[row], request.stop};
    const std::byte* from = rows.base + request.samples[row] * rows.stride;
    if (Status status = plan.run(from, to + row * out_bytes, key, scratch, stage_ns); !status.ok()) {
      *failed_row = row;
      return status;
    }
  }
  return {};
}

// Handles a column whose rows cannot be read where they lie: reads a few rows at a time into scratch, and runs the plan
// there.
Status stage_and_plan(const Column& column, const RowPlan& plan, const ReadRequest& request, std::byte* to,
                      int64_t* failed_row, uint64_t* stage_ns) noexcept {
  const auto row_bytes = static_cast<int64_t>(column.spec().row_bytes());
  const auto out_bytes = static_cast<int64_t>(plan.output().row_bytes());
  const int64_t most = stage_rows(column);
  std::byte* rest = request.scratch + round_up(static_cast<size_t>(most * row_bytes));
  for (int64_t first = 0; first < request.rows; first += most) {
    const int64_t count = std::min(most, request.rows - first);
    int64_t failed = 0;
    Status status = column.read(request.samples + first, count, request.scratch, &failed);
    for (int64_t row = 0; status.ok() && row < count; ++row) {
      const RowKey key{request.seed, request.epoch, request.samples[first + row], request.stop};
      const std::byte* from = request.scratch + row * row_bytes;
      status = plan.run(from, to + (first + row) * out_bytes, key, rest, stage_ns);
      failed = row;
    }
    if (!status.ok()) {
      *failed_row = first + failed;
      return status;
    }
  }
  return {};
}

}  // namespace

size_t gather_scratch(const Column& column, const RowPlan* plan) noexcept {
  if (plan == nullptr) return 0;
  return round_up(static_cast<size_t>(stage_rows(column)) * column.spec().row_bytes()) + plan->scratch_bytes();
}

Status gather(const Column& column, const RowPlan* plan, const ReadRequest& request, std::byte* to, int64_t* failed_row,
              uint64_t* stage_ns) noexcept {
  RowAddresses rows;
  if (!column.begin(request.samples, request.rows, &rows)) {
    if (plan == nullptr) return column.read(request.samples, request.rows, to, failed_row);
    return stage_and_plan(column, *plan, request, to, failed_row, stage_ns);
  }
  Status status;
  const auto row_bytes = static_cast<int64_t>(column.spec().row_bytes());
  if (plan == nullptr) {
    copy_rows(rows, request, row_bytes, to);
  } else {
    status = plan_rows(rows, *plan, request, row_bytes, to, request.scratch, failed_row, stage_ns);
  }
  // If a row vanished while it was read, that explains any failure of a transform.
  Status end = column.end(request.samples, request.rows, failed_row);
  return end.ok() ? status : end;
}

void gather_cast(const MemoryColumn& column, Cast cast, int64_t row_bytes, const ReadRequest& request,
                 std::byte* to) noexcept {
  const auto in_bytes = static_cast<int64_t>(column.spec().row_bytes());
  const int64_t elements = column.spec().elements();
  RowAddresses rows;
  column.begin(request.samples, request.rows, &rows);
  if (cast == nullptr) {
    copy_rows(rows, request, in_bytes, to);
    return;
  }
  // Rows this small are labels: a prefetch of each row would cost more than a wait for some of them.
  if (in_bytes <= static_cast<int64_t>(sizeof(uint64_t))) {
    for (int64_t row = 0; row < request.rows; ++row) {
      cast(to + row * row_bytes, rows.base + request.samples[row] * rows.stride, elements);
    }
    return;
  }
  const Prefetcher prefetcher(rows, in_bytes, request);
  for (int64_t row = 0; row < request.rows; ++row) {
    prefetcher.at(row);
    cast(to + row * row_bytes, rows.base + request.samples[row] * rows.stride, elements);
  }
}

}  // namespace gradring
