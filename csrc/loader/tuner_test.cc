#include "loader/tuner.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace gradring {

namespace {

constexpr uint32_t kManyCores = 64;

// A machine: `cores` workers run at full speed, and each makes `per_worker` batches per second; the consumer wants
// `wanted`.
TunerWindow window(uint32_t active, double cores, double per_worker, double wanted) {
  const double made = std::min<double>(active, cores) * per_worker;
  const double rate = std::min(made, wanted);
  return {1.0, std::max(0.0, 1 - made / wanted), active * rate / made, rate};
}

Tuner workers(uint32_t active, uint32_t most, uint32_t least = 1) {
  return Tuner({active, least, most, 4, 4, kManyCores, false});
}

uint32_t look(Tuner* tuner, const TunerWindow& window) {
  tuner->look(window);
  return tuner->active();
}

uint32_t settle(Tuner* tuner, double cores, double per_worker, double wanted, int windows = 60) {
  for (int i = 0; i < windows; ++i) tuner->look(window(tuner->active(), cores, per_worker, wanted));
  return tuner->active();
}

}  // namespace

TEST_CASE("workers are added while the consumer starves, and no further") {
  Tuner tuner = workers(1, 8);
  CHECK(settle(&tuner, 8, 100, 350) == 4);
  const uint32_t changes = tuner.changes();
  CHECK(settle(&tuner, 8, 100, 350, 500) == 4);
  CHECK(tuner.changes() == changes);
}

TEST_CASE("a worker that brings nothing is taken back, ever less often") {
  Tuner tuner = workers(1, 8);
  CHECK(settle(&tuner, 2, 100, 1000, 100) <= 3);
  const uint32_t changes = tuner.changes();
  int above = 0;
  for (int i = 0; i < 1000; ++i) above += look(&tuner, window(tuner.active(), 2, 100, 1000)) > 2;
  CHECK(above < 30);
  CHECK(tuner.changes() - changes < 24);
}

TEST_CASE("idle workers are sent to rest, and come back when they are needed") {
  Tuner tuner = workers(6, 8);
  CHECK(settle(&tuner, 8, 100, 90) == 2);
  CHECK(settle(&tuner, 8, 100, 600) >= 6);
}

TEST_CASE("where a batch filled by its consumer is the cheapest, no worker stays") {
  // Alone, the consumer makes 100 batches per second; any worker slows it down.
  for (double with_workers : {60.0, 99.0, 101.0}) {
    Tuner tuner = workers(1, 4, 0);
    int none = 0;
    for (int i = 0; i < 1000; ++i) {
      const double rate = tuner.active() == 0 ? 100 : with_workers;
      none += look(&tuner, {1.0, 0.8, 0.9 * tuner.active(), rate}) == 0;
    }
    CHECK(none > 900);
    CHECK(tuner.changes() < 40);
  }
}

TEST_CASE("where workers fill ahead, the consumer is rarely left to itself") {
  Tuner tuner = workers(1, 4, 0);
  int none = 0;
  for (int i = 0; i < 1000; ++i) {
    const double rate = tuner.active() == 0 ? 60 : 100;
    none += look(&tuner, {1.0, tuner.active() == 0 ? 0.4 : 0.0, 0.3, rate}) == 0;
  }
  CHECK(none < 40);
  CHECK(tuner.active() == 1);
}

TEST_CASE("where workers and consumer are more than the cores, one fewer is tried, however long the waits are") {
  // Two workers and a consumer share two cores: each waits for a core, and the consumer waits for the later worker.
  Tuner tuner({2, 1, 2, 4, 4, 2, false});
  for (int i = 0; i < 100; ++i) {
    const double rate = tuner.active() == 1 ? 125 : 60 + i % 5;
    tuner.look({1.0, 0.4, 0.95 * tuner.active(), rate});
  }
  CHECK(tuner.active() == 1);
  // Both workers are busy all the time: trials of one fewer, which cost speed, become rarer and rarer.
  Tuner working({1, 1, 2, 4, 4, 2, false});
  int both = 0;
  for (int i = 0; i < 1000; ++i) {
    working.look({1.0, 0.9, 0.98 * working.active(), 50.0 * working.active()});
    both += working.active() == 2;
  }
  CHECK(both > 950);
}

TEST_CASE("one odd window changes nothing") {
  Tuner tuner = workers(2, 8);
  for (int i = 0; i < 200; ++i) {
    tuner.look(i % 2 ? window(2, 8, 100, 160) : window(2, 8, 100, 800));
  }
  CHECK(tuner.changes() == 0);
  tuner.look({});
  CHECK(tuner.active() == 2);
}

namespace {

// A window of batches that take uneven time: the consumer waits for the part `starved` of the time, although the workers wait too,
// and uses the rest of the time well. `noise` is added to the rate, with a sign that changes from window to window.
TunerWindow uneven(double starved, double noise = 0) { return {1.0, starved, 0.4, (1 - starved) * 100 * (1 + noise)}; }

}  // namespace

TEST_CASE("more batches ahead while they smooth what takes uneven time, and no further") {
  Tuner tuner({1, 1, 1, 4, 64, kManyCores, false});
  const auto starved = [&] { return tuner.ahead() < 16 ? 1.6 / tuner.ahead() : 0.0; };
  for (int i = 0; i < 300; ++i) tuner.look(uneven(starved(), i % 2 ? 0.02 : -0.02));
  int right = 0;
  for (int i = 0; i < 1000; ++i) {
    tuner.look(uneven(starved(), i % 2 ? 0.02 : -0.02));
    right += tuner.ahead() == 16;
  }
  CHECK(right > 900);
}

TEST_CASE("a depth that brings nothing is taken back, ever less often") {
  Tuner tuner({1, 1, 1, 4, 16, kManyCores, false});
  int above = 0;
  for (int i = 0; i < 2000; ++i) {
    tuner.look(uneven(0.3, i % 3 ? 0.01 : -0.02));
    above += tuner.ahead() > 4;
  }
  CHECK(above < 200);
  CHECK(tuner.changes() > 2);
  CHECK(tuner.changes() < 24);
}

TEST_CASE("stores around the caches are kept where they pay, also when that changes") {
  Tuner tuner({1, 1, 1, 4, 4, kManyCores, true});
  const auto streaming = [&](double around, double through, int windows) {
    int count = 0;
    for (int i = 0; i < windows; ++i) {
      tuner.look({1.0, 0.3, 0.5, tuner.streaming() ? around : through});
      count += tuner.streaming();
    }
    return count;
  };
  CHECK(streaming(60, 100, 1000) < 50);
  CHECK(streaming(300, 100, 2000) > 1400);  // fewer than 2000, because a trial may have had to wait
  CHECK(streaming(60, 100, 2000) < 600);
  Tuner never({1, 1, 1, 4, 4, kManyCores, false});
  for (int i = 0; i < 100; ++i) never.look({1.0, 0.3, 0.5, 100});
  CHECK(never.changes() == 0);
}

TEST_CASE("a machine that turns faster for a while decides nothing") {
  // The machine is twice as fast for some time whenever a trial begins, but neither number changes the speed.
  Tuner tuner({2, 1, 4, 4, 16, kManyCores, false});
  int fast = 0, right = 0;
  for (int i = 0; i < 2000; ++i) {
    const uint32_t active = tuner.active(), ahead = tuner.ahead();
    tuner.look({1.0, 0.3, (i / 50 % 2 ? 0.4 : 0.9) * active, fast-- > 0 ? 200.0 : 100.0});
    if (fast <= 0 && (tuner.active() > active || tuner.ahead() > ahead)) fast = 30;
    right += tuner.active() <= 2 && tuner.ahead() == 4;
  }
  CHECK(right > 1600);
}

TEST_CASE("the depth stays where workers are what is missing, or the consumer fills its batches itself") {
  Tuner busy({1, 1, 1, 4, 16, kManyCores, false});
  for (int i = 0; i < 100; ++i) busy.look({1.0, 0.5, 0.95, 100});
  CHECK(busy.ahead() == 4);
  Tuner alone({0, 0, 0, 4, 16, kManyCores, false});
  for (int i = 0; i < 100; ++i) alone.look({1.0, 0.5, 0, 100, 0.5});
  CHECK(alone.ahead() == 4);
  CHECK(busy.changes() + alone.changes() == 0);
}

TEST_CASE("a depth that is not needed any more is given back, down to that of the beginning") {
  Tuner tuner({1, 1, 1, 4, 64, kManyCores, false});
  for (int i = 0; i < 200; ++i) tuner.look(uneven(tuner.ahead() < 16 ? 1.6 / tuner.ahead() : 0.0));
  REQUIRE(tuner.ahead() == 16);
  for (int i = 0; i < 2000; ++i) tuner.look(uneven(0));
  CHECK(tuner.ahead() == 4);
}

TEST_CASE("workers and depth are not on trial at the same time") {
  Tuner tuner({1, 1, 4, 4, 16, kManyCores, false});
  for (int i = 0; i < 3000; ++i) {
    const uint32_t active = tuner.active(), ahead = tuner.ahead();
    // At some times more workers would help, at other times more batches ahead.
    tuner.look({1.0, 0.2, i / 100 % 2 ? 0.9 * active : 0.3 * active, 100.0 + i % 7 + 4 * active + ahead});
    REQUIRE((tuner.active() == active || tuner.ahead() == ahead));
  }
  CHECK(tuner.active() > 1);
  CHECK(tuner.ahead() > 4);
}

}  // namespace gradring
