#include "ops/shared_update/shared_update.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "ops/sgd/sgd.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// Parameters of `elements` elements, and one worker's view and snapshot of them for each worker.
template <class T>
struct Shared {
  std::vector<T> values;
  std::shared_ptr<SharedParameters> parameters;
  std::vector<std::shared_ptr<SharedView>> views;
  std::vector<std::vector<T>> own;

  Shared(std::vector<T> given, int workers)
      : values(std::move(given)),
        parameters(std::make_shared<SharedParameters>(reinterpret_cast<std::byte*>(values.data()),
                                                      static_cast<int64_t>(values.size() * sizeof(T)), workers, 1)) {
    for (int w = 0; w < workers; ++w) {
      views.push_back(std::make_shared<SharedView>(parameters, w));
      own.emplace_back(values.size());
    }
  }

  int64_t size() const { return static_cast<int64_t>(values.size()); }
  SharedPart<T> part(int worker, int64_t begin, int64_t count) {
    const auto w = static_cast<size_t>(worker);
    return {views[w].get(), begin, count, own[w].data() + begin};
  }
};

template <class T>
std::vector<T> serial(std::vector<T> values, const std::vector<T>& gradient, const PushSgd<T>& push) {
  SgdArguments<T> g;
  g.n = static_cast<int64_t>(values.size()), g.param = values.data(), g.grad = gradient.data();
  g.lr = push.lr, g.weight_decay = push.decay, g.grad_scale = push.scale;
  sgd_update(Lane{}, g);
  return values;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Runs body(worker) on a thread for each worker.
template <class Body>
void all(int workers, const Body& body) {
  std::vector<std::thread> threads;
  for (int w = 0; w < workers; ++w) threads.emplace_back([&body, w] { body(w); });
  for (std::thread& thread : threads) thread.join();
}

template <class T>
void check_one_push(int64_t n) {
  std::vector<T> values = normal<T>(n), gradient = normal<T>(n);
  if (n > 2) values[0] = std::numeric_limits<T>::quiet_NaN(), values[1] = T(-0.0), gradient[1] = 0;
  for (const auto& [decay, scale] : {std::pair{0.0, 1.0}, {0.0, 0.125}, {0.01, 1.0}, {0.3, 0.7}}) {
    for (const Push way : {Push::kLocked, Push::kAtomic, Push::kHogwild}) {
      const PushSgd<T> push{gradient.data(), 0.1, decay, scale, way};
      const std::vector<T> want = serial(values, gradient, push);
      for (const int lanes : {1, 3}) {
        Shared<T> shared(values, 1);
        Team team(lanes);
        team.run(lanes, [&](const Lane& lane) { push_sgd(lane, shared.part(0, 0, n), push); });
        REQUIRE(same_bits(shared.values, want));
        CHECK(shared.parameters->totals().lost == 0);
        CHECK(shared.parameters->totals().retried == 0);
      }
    }
  }
}

}  // namespace

TEST_CASE("a push alone has the bits of the serial kernel") {
  for (const int64_t n : {0, 1, 2, 15, 64, 65, 1000, 40000}) {
    check_one_push<float>(n);
    check_one_push<double>(n);
  }
}

TEST_CASE("a snapshot has what the parameters are, and nothing beside the part") {
  Shared<float> shared(normal<float>(5000), 1);
  for (const int lanes : {1, 2, 5}) {
    std::fill(shared.own[0].begin(), shared.own[0].end(), 7.0f);
    Team team(lanes);
    team.run(lanes, [&](const Lane& lane) { read_shared(lane, shared.part(0, 100, 4000)); });
    for (size_t i = 0; i < 5000; ++i) REQUIRE(shared.own[0][i] == (i >= 100 && i < 4100 ? shared.values[i] : 7.0f));
  }
}

TEST_CASE("rows are read and pushed alone, once each, and numbers of no row are left out") {
  const int64_t rows = 50, columns = 7;
  const std::vector<double> values = normal<double>(rows * columns + 16), gradient = normal<double>(rows * columns);
  const std::vector<int64_t> ids = {3, 49, 3, -1, 50, 0, 3, 1 << 30};
  const std::vector<int32_t> narrow(ids.begin(), ids.end());
  for (const bool wide : {true, false}) {
    for (const Push way : {Push::kLocked, Push::kAtomic, Push::kHogwild}) {
      for (const int lanes : {1, 3}) {
        Shared<double> shared(values, 1);
        const Ids of{wide ? static_cast<const void*>(ids.data()) : narrow.data(), wide};
        std::fill(shared.own[0].begin(), shared.own[0].end(), 7.0);
        const SharedRows<double> g{shared.views[0].get(),    16, rows, columns, of, static_cast<int64_t>(ids.size()),
                                   shared.own[0].data() + 16};
        const PushSgd<double> push{gradient.data(), 0.5, 0, 1, way};
        Team team(lanes);
        team.reserve(0, ids.size() * sizeof(int64_t));
        team.run(lanes, [&](const Lane& lane) { read_shared_rows(lane, g); });
        for (int64_t i = 0; i < rows * columns; ++i) {
          const int64_t row = i / columns;
          const auto at = static_cast<size_t>(i + 16);
          REQUIRE(shared.own[0][at] == (row == 3 || row == 49 || row == 0 ? values[at] : 7.0));
        }
        team.run(lanes, [&](const Lane& lane) { push_sgd_rows(lane, g, push); });
        for (int64_t i = 0; i < rows * columns; ++i) {
          const int64_t row = i / columns;
          const auto at = static_cast<size_t>(i + 16);
          const bool named = row == 3 || row == 49 || row == 0;
          REQUIRE(shared.values[at] == (named ? values[at] - gradient[static_cast<size_t>(i)] * 0.5 : values[at]));
        }
      }
    }
  }
}

TEST_CASE("integer gradients of many workers: locks and compare-and-swap lose nothing") {
  // Every sum is an integer that a float holds exactly, so the order of updates does not matter.
  constexpr int kWorkers = 4, kTurns = 200;
  const int64_t n = 3 * 64 + 5;
  std::vector<float> gradient(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) gradient[static_cast<size_t>(i)] = static_cast<float>(i % 7 - 3);
  for (const Push way : {Push::kLocked, Push::kAtomic}) {
    Shared<float> shared(std::vector<float>(static_cast<size_t>(n)), kWorkers);
    all(kWorkers, [&](int w) {
      const PushSgd<float> push{gradient.data(), 1, 0, 1, way};
      for (int i = 0; i < kTurns; ++i) push_sgd(Lane{}, shared.part(w, 0, n), push);
    });
    for (int64_t i = 0; i < n; ++i)
      REQUIRE(shared.values[static_cast<size_t>(i)] == -kWorkers * kTurns * gradient[static_cast<size_t>(i)]);
    CHECK(shared.parameters->totals().lost == 0);
  }
}

TEST_CASE("a forced collision loses updates with hogwild, and none with locks or compare-and-swap") {
  for (const Push way : {Push::kLocked, Push::kAtomic, Push::kHogwild}) {
    constexpr int kWorkers = 2, kTurns = 3;
    const std::vector<float> gradient(8, 1.0f);
    Shared<float> shared(std::vector<float>(8), kWorkers);
    shared.parameters->force_collisions(std::chrono::milliseconds(way == Push::kLocked ? 5 : 60000), 1);
    all(kWorkers, [&](int w) {
      for (int i = 0; i < kTurns; ++i)
        push_sgd(Lane{}, shared.part(w, 0, 8), PushSgd<float>{gradient.data(), 1, 0, 1, way});
    });
    const auto totals = shared.parameters->totals();
    for (const float value : shared.values) {
      if (way == Push::kHogwild) {
        CHECK(value > -kWorkers * kTurns);
      } else {
        CHECK(value == -kWorkers * kTurns);
      }
    }
    CHECK((totals.lost > 0) == (way == Push::kHogwild));
    CHECK((totals.retried > 0) == (way == Push::kAtomic));
    CHECK(totals.counted == (way == Push::kHogwild ? 8u * kWorkers * kTurns : 0u));
  }
}

TEST_CASE("an update under a lock, with state that only its holder touches, while others read: no race, nothing lost") {
  constexpr int kWorkers = 3, kSteps = 100;
  const int64_t n = 300, begin = kStripe;
  Shared<double> shared(std::vector<double>(static_cast<size_t>(begin + n)), kWorkers);
  std::vector<double> momentum(static_cast<size_t>(n));
  all(kWorkers, [&](int w) {
    Team team(w == 0 ? 2 : 1);
    const SharedPart<double> part = shared.part(w, begin, n);
    for (int step = 0; step < kSteps; ++step) {
      team.run(team.lanes(), [&](const Lane& lane) {
        read_shared(lane, part);
        lane.barrier();
        take_shared(lane, part);
        lane.barrier();
        const Range mine = split(lane, n, kFlatGrain);
        for (int64_t i = mine.begin; i < mine.end; ++i) {
          momentum[static_cast<size_t>(i)] += 1;
          part.own[i] -= momentum[static_cast<size_t>(i)];
        }
        give_shared(lane, part);
      });
    }
  });
  const double steps = kWorkers * kSteps;
  for (int64_t i = 0; i < n; ++i) {
    REQUIRE(momentum[static_cast<size_t>(i)] == steps);
    REQUIRE(shared.values[static_cast<size_t>(begin + i)] == -steps * (steps + 1) / 2);
  }
}
