#include "program/lane_trial.h"

#include <doctest/doctest.h>

namespace gradring {

namespace {

struct Outcome {
  int lanes;
  int steps;
};

// A step takes `one` on one lane and `all` on all lanes. Every `burst`-th step takes ten times as long.
Outcome settle(int lanes, uint64_t one, uint64_t all, int burst = 0) {
  LaneTrial trial(lanes);
  int steps = 0;
  for (; !trial.done() && steps < 1000; ++steps) {
    const bool hit = burst > 0 && steps % burst == 0;
    trial.note((trial.lanes() == 1 ? one : all) * (hit ? 10 : 1));
  }
  return {trial.lanes(), steps};
}

}  // namespace

TEST_CASE("a trial chooses what is faster") {
  CHECK(settle(2, 100, 60).lanes == 2);
  CHECK(settle(2, 100, 95).lanes == 2);
  CHECK(settle(2, 95, 100).lanes == 1);
  CHECK(settle(8, 5, 12).lanes == 1);
  CHECK(settle(2, 100, 95, 3).lanes == 2);
  CHECK(settle(2, 95, 100, 3).lanes == 1);
}

TEST_CASE("a clear case is settled soon, and nothing is tried where there is no choice") {
  CHECK(settle(2, 100, 50).steps == 8);
  CHECK(settle(2, 100, 99).steps == 32);
  CHECK(settle(1, 100, 50).steps == 0);
  CHECK(LaneTrial().done());
  CHECK(LaneTrial().lanes() == 1);
}

TEST_CASE("the first step of a turn does not count") {
  LaneTrial trial(2);
  while (!trial.done()) trial.note(trial.lanes() == 1 ? 100 : 90);
  CHECK(trial.lanes() == 2);
  LaneTrial lucky(2);
  lucky.note(1);
  while (!lucky.done()) lucky.note(lucky.lanes() == 1 ? 80 : 90);
  CHECK(lucky.lanes() == 1);
}

}  // namespace gradring
