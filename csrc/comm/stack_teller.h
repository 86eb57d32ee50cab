// StackTeller: shows where a stalled rank hangs. A thread of each rank waits until another rank asks, and then writes
// its Python stack to the rank's note in the control block. The object holds no Group, so a communicator that the
// program drops is closed all the same.
//
// A rank that waits asks some time before its deadline, so that it need not wait for an answer afterwards. The other rank may
// still come in time, and stall again later: so each question has a number, and an answer is valid for ranks that asked before
// it was begun. If a note changes while another rank reads it, that rank reads it again (a sequence lock; its orders are those
// of Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", 2012).
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

  // Waits for the next question. Returns true if another rank has asked since the last answer, and false once the
  // communicator is closed.
  bool await_question() noexcept;
  // Writes the stack to the note. If the text is too long, the note has its end.
  void answer(std::string_view text) noexcept;

 private:
  std::shared_ptr<ControlBlock> control_;
  int rank_;
  uint32_t question_ = 0;  // the number of the last question
};

// A question of a rank that waits, for the stack of another rank.
class StackQuestion {
 public:
  // Asks again, if the other rank can write down its stack.
  void ask(ControlBlock& control, int rank) noexcept;
  // Whether that rank's note answers the question. Waits for the answer, but only until a moment after the question.
  bool answered(ControlBlock& control, int rank) noexcept;

 private:
  bool asked_ = false;
  uint32_t number_ = 0;
  Deadline asked_at_{};
};

// The text of the rank's note; empty if the note is changing.
std::string told_stack(ControlBlock& control, int rank);

}  // namespace gradring
