// Bugs that tests plant into the device feed: see runtime/planted.h.
#pragma once

#include "runtime/planted.h"

namespace gradring::cuda {

enum class FeedPlant {
  kNone,
  kRefillBeforeCopy,  // the feed returns the host's memory before it was copied
  kSlotReused,        // a copy overwrites a batch that is still read
  kNoArrivalWait,     // the consumer's stream does not wait for the copy
  kOneStreamOnly,     // a batch that a second stream uses is ordered behind the first alone
  kCaptureForgotten,  // a batch that is dropped during a capture is free at once
};

}  // namespace gradring::cuda
