// RankSteps: what the epoch loop of one rank tells the other ranks with each step, and learns from them. Ranks have sources of
// their own, which may end at different steps: a rank whose source has ended takes part without rows until all have ended.
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

// A rank without rows in a batch runs the program of this number of rows, which only takes part in the update.
inline constexpr int64_t kIdleRows = -1;

class GRADRING_API RankSteps {
 public:
  virtual ~RankSteps() = default;

  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  // Lane 0 says before a step how many rows this rank has in it, and whether its source has ended.
  virtual void bring(int64_t rows, bool ended) noexcept = 0;
  // The rows of all ranks in the last step.
  virtual int64_t rows() const noexcept = 0;
  // Whether the sources of all ranks had ended at the last step, which then was none.
  virtual bool all_ended() const noexcept = 0;
};

}  // namespace gradring
