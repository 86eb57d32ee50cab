// Meeting: the interface through which a step of data-parallel training meets the other ranks.
//
// Ranks bring a few numbers to a meeting, and every rank reads what all have brought, so all make the same decision from
// the same numbers. Before the first write to a parameter, one word that all ranks share settles whether the step is
// committed. After its last write a rank declares its part of the update done, and waits for the others.
//
// Lane 0 of a rank calls the functions that are not const, one at a time; the other lanes read the results after a barrier.
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

// What one rank brings to a meeting.
struct Brought {
  double loss_sum = 0;  // the loss's sum over the rank's rows of the batch
  double loss_weight = 0;
  double largest = 0;  // the largest magnitude in the rank's plane of gradients, if the plane is complete
  double squares = 0;  // the sum of squares of the summed gradients that the rank owns
  int64_t correct = 0;
  uint32_t fault = 0;  // a Fault: the rank cannot take the step
};

enum class Decision : uint8_t { kOpen, kCommit, kAbort };

class GRADRING_API Meeting {
 public:
  virtual ~Meeting() = default;

  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  // Brings `mine`, and waits until every rank has come. Returns false if a rank has left, so that there was no meeting.
  virtual bool meet(const Brought& mine) noexcept = 0;
  virtual bool took_place() const noexcept = 0;  // what the last meet returned
  // What a rank has brought to the last meeting, until this rank's next meeting begins.
  virtual const Brought& of(int rank) const noexcept = 0;
  // The rows of all ranks in the batch of the last meeting; -1 if each rank has known them before.
  virtual int64_t rows() const noexcept { return -1; }

  // Settles the last meeting's decision. All ranks want the same, because they have the same numbers; the first one to get
  // here sets the word, and every rank reads it. With kCommit, the update of the parameters begins for this rank.
  virtual Decision settle(bool commit) noexcept = 0;
  virtual Decision decision()
      const noexcept = 0;  // what the last settle returned; kOpen after a meeting that settled nothing

  // Declares this rank's part of the update done, and waits for all other parts. Returns false if a rank has left in
  // between.
  virtual bool finish() noexcept = 0;
};

}  // namespace gradring
