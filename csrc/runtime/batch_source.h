// BatchSource: what feeds the epoch loop.
//
// A turn: lane 0 calls next; every lane of the team calls fill with that batch (an in-memory source gathers its rows
// there, a source whose batches arrive filled does nothing); a barrier; the step; lane 0 calls release.
// At most two batches are out at a time, and they are released in the order in which they came.
#pragma once

#include <cstdint>

#include "runtime/dtype.h"
#include "runtime/status.h"
#include "runtime/team.h"
#include "runtime/wait.h"

namespace gradring {

struct Batch {
  static constexpr int kMaxFields = 8;
  const void* fields[kMaxFields] = {};  // rows x elements of the field, contiguous; valid until release
  const int64_t* samples = nullptr;     // each row's number in the source: the key of its random numbers
  int64_t rows = 0;                     // 0: the epoch is over
  int64_t position = 0;                 // of the first row in the epoch's order
  uint32_t slot = 0;                    // the source's own
};

class GRADRING_API BatchSource {
 public:
  virtual ~BatchSource() = default;

  // Code::kTimeout if no batch came before the deadline: call again. Any other failure ends the epoch.
  virtual Status next(Batch* batch, Deadline deadline) noexcept = 0;
  // Called by all lanes, or by one alone; has no barrier inside.
  virtual void fill(const Lane& lane, const Batch& batch) noexcept = 0;
  virtual void release(const Batch& batch) noexcept = 0;
};

}  // namespace gradring
