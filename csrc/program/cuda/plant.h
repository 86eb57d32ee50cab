// Bugs that tests plant into this folder: see runtime/planted.h.
#pragma once

#include "runtime/planted.h"

namespace gradring {

enum class Plant {
  kNone,
  kNoEntryWait,         // the engine does not wait for what the caller's stream has to do
  kRefillBeforeCopy,    // the host writes into a pinned slot that is still being copied
  kSlotReused,          // a copy overwrites a batch that a step still reads
  kNoArrivalWait,       // a step does not wait for its batch
  kFaultReadTooLate,    // the next step begins although the one before had a fault
  kUpdateIgnoresFault,  // the optimizer does not look at the fault
  kCountsIgnoreFault,   // a failed step counts as done
  kGraphOfFreedMemory,  // a graph is kept although its temps have moved
  kRehearsalActs,       // the run before a capture changes the parameters
  kErrorSwallowed,      // the engine does not look at what a wait returned
  kReportReadTooEarly,  // the host reads the report before it has come
  kNoExitWait,          // the caller's stream does not wait for a step that has returned
  kLossSlotReused,      // a later step overwrites a loss that the host has not read
  kFaultHeardTooLate,   // the host does not look how earlier steps have ended
};

}  // namespace gradring
