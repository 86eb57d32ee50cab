// What lets a stalled rank say where it is: a thread of that rank waits to be asked, and writes its Python stack to the
// rank's note in the control block. It holds no group, so that a communicator that is dropped is closed all the same.
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

  // True once another rank asks; false when the communicator is closed.
  bool await_question() noexcept;
  // The end of the text, if it is too long.
  void answer(std::string_view text) noexcept;

 private:
  std::shared_ptr<ControlBlock> control_;
  int rank_;
};

}  // namespace gradring
