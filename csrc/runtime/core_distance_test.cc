#include "runtime/core_distance.h"

#include <doctest/doctest.h>
#include <sched.h>

namespace gradring {

TEST_CASE("a round trip between two cores takes some time, and the caller may go where it could before") {
  cpu_set_t before, after;
  sched_getaffinity(0, sizeof before, &before);
  const double seconds = core_round_trip();
  sched_getaffinity(0, sizeof after, &after);
  CHECK(CPU_EQUAL(&before, &after));
  CHECK((seconds > 0) == (CPU_COUNT(&before) > 1));
}

TEST_CASE("where there is one core there is no way") {
  cpu_set_t before, one;
  sched_getaffinity(0, sizeof before, &before);
  CPU_ZERO(&one);
  for (size_t core = 0; CPU_COUNT(&one) == 0; ++core) {
    if (CPU_ISSET(core, &before)) CPU_SET(core, &one);
  }
  sched_setaffinity(0, sizeof one, &one);
  CHECK(core_round_trip() == 0);
  sched_setaffinity(0, sizeof before, &before);
}

}  // namespace gradring
