// StackTeller: shows where a stalled rank hangs. A thread of each rank waits until another rank asks, and then writes
// its Python stack to the rank's note in the control block. The object holds no Group, so a communicator that the
// program drops is closed all the same.
//
// A rank that waits asks some time before its deadline, so that no answer needs to be waited for after it. The rank that it asks
// may come in time all the same, and stall again later: each question has a number, and an answer counts for those who
// asked before it was begun. A note that is written anew while another rank reads it is read again (a sequence lock; its orders
// are those of Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", 2012).
//
// | variable             | writer             | readers         | order                      | why                                     |
// |----------------------|--------------------|-----------------|----------------------------|-----------------------------------------|
// | RankState::questions | its rank, who asks | both            | add and or acq_rel,        | a question comes to a rank that tells   |
// |                      |                    |                 | load acquire               |                                         |
// | RankState::told      | answer             | who asks        | release, acquire, relaxed  | the note is written before it; the same |
// |                      |                    |                 |                            | value again: the note is whole          |
// | a note's words       | answer             | who asks        | release, acquire           | a reader of a new word sees that `told` |
// |                      |                    |                 |                            | is odd                                  |
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "comm/control.h"
#include "gradring/export.h"
#include "runtime/wait.h"

namespace gradring {

class GRADRING_API StackTeller {
 public:
  StackTeller(std::shared_ptr<ControlBlock> control, int rank) noexcept;

  // Returns true each time when another rank has asked since the last answer, and false when the communicator is closed.
  bool await_question() noexcept;
  // Writes the stack to the note. If the text is too long, the note has its end.
  void answer(std::string_view text) noexcept;

 private:
  std::shared_ptr<ControlBlock> control_;
  int rank_;
  uint32_t question_ = 0;  // the last one that was heard
};

// What a rank that waits asks another one for.
class StackQuestion {
 public:
  // Asks anew, if that rank tells its stack.
  void ask(ControlBlock& control, int rank) noexcept;
  // Whether that rank's note answers the question. Waits for the answer, but only until a moment after the question.
  bool answered(ControlBlock& control, int rank) noexcept;

 private:
  bool asked_ = false;
  uint32_t number_ = 0;
  Deadline asked_at_{};
};

// What the rank's note says, or nothing if it is not whole.
std::string told_stack(ControlBlock& control, int rank);

}  // namespace gradring
