// StackTeller: shows where a stalled rank hangs. A thread of each rank waits until another rank asks, and then writes
// its Python stack to the rank's note in the control block. The object holds no Group, so a communicator that the
// program drops is closed all the same.
//
// | variable           | writer             | readers         | order                        | why                                   |
// |--------------------|--------------------|-----------------|------------------------------|---------------------------------------|
// | RankState::telling | its rank, who asks | both            | CAS and exchange acq_rel,    | a question comes to a rank that tells |
// |                    |                    |                 | load acquire                 |                                       |
// | RankState::told    | answer             | who asks        | release, acquire             | the note is written before it         |
#pragma once

#include <memory>
#include <string_view>

#include "comm/control.h"
#include "gradring/export.h"

namespace gradring {

class GRADRING_API StackTeller {
 public:
  StackTeller(std::shared_ptr<ControlBlock> control, int rank) noexcept;

  // Returns true when another rank asks, and false when the communicator is closed.
  bool await_question() noexcept;
  // Writes the stack to the note. If the text is too long, the note has its end.
  void answer(std::string_view text) noexcept;

 private:
  std::shared_ptr<ControlBlock> control_;
  int rank_;
};

}  // namespace gradring
