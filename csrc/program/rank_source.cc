#include "program/rank_source.h"

#include <numeric>

namespace gradring {

Status RankSource::next(Batch* batch, Deadline deadline) noexcept {
  if (!ended_) {
    if (!own_.has_waiting) {
      if (const Status status = own_.source->next(&own_.waiting, deadline); !status.ok()) return status;
    }
    *batch = own_.waiting;
    own_.has_waiting = false;
    if (batch->rows > 0) {
      if (own_numbers_) {
        try {
          numbers_.resize(static_cast<size_t>(batch->rows));
        } catch (...) {
          return {Code::kOutOfMemory, "[ranks] no memory for the numbers of %lld rows",
                  static_cast<long long>(batch->rows)};
        }
        std::iota(numbers_.begin(), numbers_.end(), batch->position + ranks_.rank() * batch->rows);
        batch->samples = numbers_.data();
      }
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

void RankSource::fill(const Lane& lane, const Batch& batch) noexcept {
  if (lane.index == 0) {
    ranks_.bring(batch.rows > 0 ? batch.rows : 0, batch.rows == kIdleRows);
    idle_ran_ = idle_ran_ || batch.rows == kIdleRows;
  }
  if (batch.rows > 0) own_.source->fill(lane, batch);
}

void RankSource::release(const Batch& batch) noexcept {
  if (batch.rows > 0) own_.source->release(batch);
}

}  // namespace gradring
