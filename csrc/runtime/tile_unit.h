// The processor's tile unit (Intel AMX): whether it is there, and whether the system lets this process use it.
#pragma once

#include "gradring/export.h"

namespace gradring {

enum class TileUnit : int {
  kAbsent = 0,       // the processor has no unit for tiles of bf16, or the system does not keep its registers
  kSwitchedOff = 1,  // GRADRING_ISA names a level without it
  kRefused = 2,      // the system refused the permission
  kPermitted = 3,
};

GRADRING_API const char* tile_unit_name(TileUnit state) noexcept;

// The first call asks the system for the permission, which then holds for all threads of the process and for its forked
// children; teams make that call before they start threads. Later calls return the same answer.
GRADRING_API TileUnit tile_unit() noexcept;

}  // namespace gradring
