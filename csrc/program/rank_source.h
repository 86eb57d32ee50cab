// RankSource: the batches of one rank of a data-parallel training, for the epoch loop. It reads another source, and says before
// each step how many rows this rank has. After that source has ended it gives batches without rows, until all ranks have ended.
#pragma once

#include <cstdint>
#include <vector>

#include "gradring/export.h"
#include "program/epoch.h"
#include "runtime/batch_source.h"
#include "runtime/rank_steps.h"

namespace gradring {

class GRADRING_API RankSource final : public BatchSource {
 public:
  // `own_numbers`: the rows are those of a batch that the ranks have divided equally, this rank's after those of the ranks before
  // it. So its rows have these numbers, which are keys of random numbers, and not those of the source.
  // A rank does not know the others' rows before a step: if they differ, two rows may get the same number.
  //
  // A rank whose rows are a block of a whole batch (loader/order.h) finds its program by the rows of the whole batch, because
  // these decide which of its rows belong to which shard. The source says how many these are; with `own_numbers`, `whole_rows` does.
  RankSource(Feed& own, RankSteps& ranks, bool own_numbers, int64_t whole_rows = 0) noexcept
      : own_(own), ranks_(ranks), own_numbers_(own_numbers), whole_rows_(whole_rows) {}

  Status next(Batch* batch, Deadline deadline) noexcept override;
  void fill(const Lane& lane, const Batch& batch) noexcept override;
  void release(const Batch& batch) noexcept override;

  // The batch with as many rows as this rank has of it.
  Batch own_rows(Batch batch) const noexcept;

 private:
  Feed& own_;
  RankSteps& ranks_;
  bool own_numbers_;
  int64_t whole_rows_;
  bool ended_ = false, idle_ran_ = false;
  std::vector<int64_t> numbers_;
};

}  // namespace gradring
