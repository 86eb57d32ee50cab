// The processor's tile unit (Intel AMX): whether it is there, and whether the system lets this process use it.
#pragma once

#include "gradring/export.h"

namespace gradring {

enum class TileUnit : int {
  kAbsent = 0,       // the processor has no unit for tiles of bf16, or the system does not keep its registers
  kSwitchedOff = 1,  // GRADRING_ISA names a level without it
  kRefused = 2,      // the system refused the permission, or a thread had a small signal stack at the first call
  kPermitted = 3,
};

GRADRING_API const char* tile_unit_name(TileUnit state) noexcept;

// The first call asks the system for the permission, which then holds for all threads of the process, older ones too, and for
// its forked children. Later calls return the same answer. The permission has a price: a signal's frame grows by the 8 KiB of the
// tiles, so Linux from then on refuses signal stacks (sigaltstack) that are too small for it, and it refuses the permission while
// any thread has such a stack. So only products that would use the unit ask.
GRADRING_API TileUnit tile_unit() noexcept;

}  // namespace gradring
