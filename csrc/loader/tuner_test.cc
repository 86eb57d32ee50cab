#include "loader/tuner.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace gradring {

namespace {

// A machine: `cores` workers run at full speed, each making `per_worker` batches a second; the consumer wants `wanted`.
TunerWindow window(uint32_t active, double cores, double per_worker, double wanted) {
  const double made = std::min<double>(active, cores) * per_worker;
  const double rate = std::min(made, wanted);
  return {1.0, std::max(0.0, 1 - made / wanted), active * rate / made, rate};
}

uint32_t settle(Tuner* tuner, double cores, double per_worker, double wanted, int windows = 60) {
  for (int i = 0; i < windows; ++i) tuner->look(window(tuner->active(), cores, per_worker, wanted));
  return tuner->active();
}

}  // namespace

TEST_CASE("workers are added while the consumer starves, and no further") {
  Tuner tuner(1, 8);
  CHECK(settle(&tuner, 8, 100, 350) == 4);
  const uint32_t changes = tuner.changes();
  CHECK(settle(&tuner, 8, 100, 350, 500) == 4);
  CHECK(tuner.changes() == changes);
}

TEST_CASE("a worker that brings nothing is taken back, ever less often") {
  Tuner tuner(1, 8);
  CHECK(settle(&tuner, 2, 100, 1000, 100) <= 3);
  const uint32_t changes = tuner.changes();
  int above = 0;
  for (int i = 0; i < 1000; ++i) above += tuner.look(window(tuner.active(), 2, 100, 1000)) > 2;
  CHECK(above < 30);
  CHECK(tuner.changes() - changes < 24);
}

TEST_CASE("idle workers are sent to rest, and come back when they are needed") {
  Tuner tuner(6, 8);
  CHECK(settle(&tuner, 8, 100, 90) == 2);
  CHECK(settle(&tuner, 8, 100, 600) >= 6);
}

TEST_CASE("where a batch filled by its consumer is the cheapest, no worker stays") {
  // Alone the consumer makes 100 a second; any worker slows it down.
  for (double with_workers : {60.0, 99.0, 101.0}) {
    Tuner tuner(1, 4, 0);
    int none = 0;
    for (int i = 0; i < 1000; ++i) {
      const double rate = tuner.active() == 0 ? 100 : with_workers;
      none += tuner.look({1.0, 0.8, 0.9 * tuner.active(), rate}) == 0;
    }
    CHECK(none > 900);
    CHECK(tuner.changes() < 40);
  }
}

TEST_CASE("where workers fill ahead, the consumer is rarely left to itself") {
  Tuner tuner(1, 4, 0);
  int none = 0;
  for (int i = 0; i < 1000; ++i) {
    const double rate = tuner.active() == 0 ? 60 : 100;
    none += tuner.look({1.0, tuner.active() == 0 ? 0.4 : 0.0, 0.3, rate}) == 0;
  }
  CHECK(none < 40);
  CHECK(tuner.active() == 1);
}

TEST_CASE("one odd window changes nothing") {
  Tuner tuner(2, 8);
  for (int i = 0; i < 200; ++i) {
    tuner.look(i % 2 ? window(2, 8, 100, 160) : window(2, 8, 100, 800));
  }
  CHECK(tuner.changes() == 0);
  tuner.look({});
  CHECK(tuner.active() == 2);
}

}  // namespace gradring
