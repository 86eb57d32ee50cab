// How far apart two cores are: the time of a round trip of one word between them.
//
// Two processors of a virtual machine may share a last-level cache now and not share it a minute later: the host decides, and
// no file of /proc shows it. Cores that share a cache pass data to each other faster; cores that do not share one reach memory
// by two paths. The round trip tells the cases apart: it takes several times as long between two caches.
#pragma once

#include "gradring/export.h"

namespace gradring {

// The median round trip, in seconds, of a word between the first two cores that this process may use. The measurement takes
// about a millisecond. 0 if this process may use only one core, or if the system refuses another thread.
GRADRING_API double core_round_trip() noexcept;

}  // namespace gradring
