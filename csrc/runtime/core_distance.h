// How far apart two cores are: the time of a round trip of one word between them.
//
// Two processors of a virtual machine may be two cores now and two threads of one core a minute later: the host decides,
// and no file of /proc tells. Work for two threads then takes half again as long. The round trip tells: threads of one
// core answer each other several times sooner than two cores can.
#pragma once

#include "gradring/export.h"

namespace gradring {

// Median seconds of a word's way from the first core that this process may use to the second and back, after about a
// millisecond of trips. 0 where there are no two cores, or the system refuses a thread.
GRADRING_API double core_round_trip() noexcept;

}  // namespace gradring
