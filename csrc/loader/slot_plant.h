// Bugs that tests plant into the memory of slots: see runtime/planted.h.
#pragma once

#include "runtime/planted.h"

namespace gradring {

enum class SlotPlant {
  kNone,
  kTrimmed,   // the pages of free slots go back to the system although a device has registered them
  kOverlaps,  // a block's registration covers a page of the next one
};

}  // namespace gradring
