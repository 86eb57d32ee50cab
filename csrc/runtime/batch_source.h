// BatchSource: the interface through which the epoch loop gets its batches.
//
// For each batch, lane 0 calls next, and then every lane of the team calls fill with that batch: an in-memory source gathers
// its rows there, and a source whose batches arrive filled does nothing. After a barrier the lanes run the step, and lane 0
// calls release. At most two batches are in use at a time, and they are released in the order in which next returned them.
#pragma once

#include <cstdint>

#include "runtime/dtype.h"
#include "runtime/lane.h"
#include "runtime/status.h"
#include "runtime/wait.h"

namespace gradring {

struct Batch {
  static constexpr int kMaxFields = 8;
  const void* fields[kMaxFields] = {};  // rows x elements of the field, contiguous; valid until release
  const int64_t* samples = nullptr;     // each row's number in the source: the key of its random numbers
  int64_t rows = 0;                     // 0: the epoch is over
  int64_t position = 0;                 // the first row's position in the epoch's order
  int64_t whole_rows = 0;               // rows of the whole batch, if this is a part of it; 0: this is whole
  int64_t first = 0;                    // in a call of fill: the first of the `rows` that the lanes fill
  uint32_t slot = 0;                    // for the source: the memory of this batch
};

class GRADRING_API BatchSource {
 public:
  virtual ~BatchSource() = default;

  // Gets the next batch. It returns Code::kTimeout if no batch came before the deadline: call it again. Any other failure ends
  // the epoch.
  virtual Status next(Batch* batch, Deadline deadline) noexcept = 0;
  // Fills the batch. All lanes of the team call it, or one lane alone, so it contains no barrier.
  virtual void fill(const Lane& lane, const Batch& batch) noexcept = 0;
  virtual void release(const Batch& batch) noexcept = 0;
};

}  // namespace gradring
