// How far apart two cores are: the time of a round trip of one word between them.
//
// Two processors of a virtual machine may be cores that share a last-level cache now, and cores that do not a minute later:
// the host decides, and no file of /proc tells. Near ones hand memory to each other sooner, far ones have two ways to the
// memory. The round trip tells them apart: it takes several times as long between caches.
#pragma once

#include "gradring/export.h"

namespace gradring {

// Median seconds of a word's way from the first core that this process may use to the second and back, after about a
// millisecond of trips. 0 where there are no two cores, or the system refuses a thread.
GRADRING_API double core_round_trip() noexcept;

}  // namespace gradring
