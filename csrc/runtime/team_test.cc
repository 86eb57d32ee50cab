#include "runtime/team.h"

#include <doctest/doctest.h>

#include <vector>

using gradring::Lane;
using gradring::Team;

TEST_CASE("every lane runs, and barriers separate what they write") {
  for (int lanes : {1, 2, 3, 8}) {
    Team team(lanes);
    std::vector<int> written(static_cast<size_t>(lanes), 0);
    std::vector<int> sums(static_cast<size_t>(lanes), 0);
    for (int round = 1; round <= 200; ++round) {
      team.run(lanes, [&](const Lane& lane) {
        written[static_cast<size_t>(lane.index)] = round;
        lane.barrier();
        int sum = 0;
        for (int value : written) sum += value;
        sums[static_cast<size_t>(lane.index)] = sum;
        lane.barrier();
      });
      for (int sum : sums) CHECK(sum == round * lanes);
    }
  }
}
