// Schedule: how the lanes of a team share a program's instructions. It is derived from the program: from the access of each
// operand (ops/op.h) and the work of each call.
#pragma once

#include <vector>

#include "ops/work.h"
#include "program/program.h"

namespace gradring {

struct Dispatch {
  bool single_lane = false;  // lane 0 alone runs it
  bool barrier = false;      // all lanes wait for each other before it
};

struct Schedule {
  std::vector<Dispatch> dispatches;  // one for each instruction
  ScratchBytes scratch;              // the most that an instruction needs, on one lane or on all
  bool shared_out = false;           // some instruction of the usual route is split among the lanes
};

// Puts a barrier before each instruction that touches memory which an instruction since the last barrier has written,
// or that writes memory which such an instruction has read. Memory is compared, not buffer numbers, so shared temps and
// the kernels' shared scratch are covered. `lanes` is the size of the team.
Schedule make_schedule(const Program& program, int lanes);

}  // namespace gradring
