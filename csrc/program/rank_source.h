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
  RankSource(Feed& own, RankSteps& ranks, bool own_numbers) noexcept
      : own_(own), ranks_(ranks), own_numbers_(own_numbers) {}

  Status next(Batch* batch, Deadline deadline) noexcept override;
  void fill(const Lane& lane, const Batch& batch) noexcept override;
  void release(const Batch& batch) noexcept override;

 private:
  Feed& own_;
  RankSteps& ranks_;
  bool own_numbers_;
  bool ended_ = false, idle_ran_ = false;
  std::vector<int64_t> numbers_;
};

}  // namespace gradring
