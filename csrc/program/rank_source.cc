#include "program/rank_source.h"

#include <numeric>

namespace gradring {

namespace {

// The first row of a rank's block of a batch, as loader/order.h cuts it.
int64_t block_begin(int64_t rows, int rank, int size) noexcept { return rows * rank / size; }

}  // namespace

Status RankSource::next(Batch* batch, Deadline deadline) noexcept {
  if (!ended_) {
    if (!own_.has_waiting) {
      if (const Status status = own_.source->next(&own_.waiting, deadline); !status.ok()) return status;
    }
    *batch = own_.waiting;
    own_.has_waiting = false;
    if (batch->rows > 0 || batch->whole_rows > 0) {
      if (own_numbers_) {
        batch->whole_rows = whole_rows_;
        const int64_t first =
            whole_rows_ > 0 ? block_begin(whole_rows_, ranks_.rank(), ranks_.size()) : ranks_.rank() * batch->rows;
        try {
          numbers_.resize(static_cast<size_t>(batch->rows));
        } catch (...) {
          return {Code::kOutOfMemory, "[ranks] no memory for the numbers of %lld rows",
                  static_cast<long long>(batch->rows)};
        }
        std::iota(numbers_.begin(), numbers_.end(), batch->position + first);
        batch->samples = numbers_.data();
      }
      if (batch->whole_rows > 0) batch->rows = batch->whole_rows;
      return {};
    }
    ended_ = true;
  }
  const int64_t position = batch->position;
  *batch = Batch{};
  batch->position = position;
  // If this rank has made no step since its source ended, the last meeting belongs to another step.
  batch->rows = idle_ran_ && ranks_.all_ended() ? 0 : kIdleRows;
  return {};
}

Batch RankSource::own_rows(Batch batch) const noexcept {
  if (batch.whole_rows > 0) {
    const int rank = ranks_.rank(), size = ranks_.size();
    batch.rows = block_begin(batch.whole_rows, rank + 1, size) - block_begin(batch.whole_rows, rank, size);
  }
  return batch;
}

void RankSource::fill(const Lane& lane, const Batch& batch) noexcept {
  Batch own = own_rows(batch);
  if (lane.index == 0) {
    ranks_.bring(own.rows > 0 ? own.rows : 0, batch.rows == kIdleRows);
    idle_ran_ = idle_ran_ || batch.rows == kIdleRows;
  }
  if (own.rows <= 0) return;
  if (batch.whole_rows <= 0) return own_.source->fill(lane, own);
  // Cut the whole batch among the lanes of all ranks, so that each replica fills exactly the rows that it reads
  // (program/replicas.h): no barrier separates a replica's reads from what another replica fills. A cut of this rank's rows alone
  // has other bounds.
  const int rank = ranks_.rank(), size = ranks_.size();
  const Range rows = split({nullptr, rank * lane.count + lane.index, size * lane.count}, batch.whole_rows);
  own.first = rows.begin - block_begin(batch.whole_rows, rank, size);
  own.rows = rows.end - rows.begin;
  own_.source->fill({}, own);
}

void RankSource::release(const Batch& batch) noexcept {
  if (batch.rows > 0) own_.source->release(own_rows(batch));
}

}  // namespace gradring
