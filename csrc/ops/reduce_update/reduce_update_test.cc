#include "ops/reduce_update/reduce_update.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
constexpr Dtype kDtype = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;

// The reference: the sum in rank order, element by element.
template <class T>
std::vector<T> reference(const std::vector<T>& planes, int64_t ranks, int64_t columns, int64_t begin, int64_t count) {
  std::vector<T> sums;
  for (int64_t c = begin; c < begin + count; ++c) {
    T sum = planes[static_cast<size_t>(c)];
    for (int64_t r = 1; r < ranks; ++r) sum += planes[static_cast<size_t>(r * columns + c)];
    sums.push_back(sum);
  }
  return sums;
}

// The reference: the sum in a tree, which it builds level by level from the leaves. Ranks are a power of two.
template <class T>
std::vector<T> tree_reference(const std::vector<T>& planes, int64_t ranks, int64_t columns, int64_t begin,
                              int64_t count) {
  std::vector<T> sums;
  for (int64_t c = begin; c < begin + count; ++c) {
    std::vector<T> level;
    for (int64_t r = 0; r < ranks; ++r) level.push_back(planes[static_cast<size_t>(r * columns + c)]);
    while (level.size() > 1) {
      for (size_t i = 0; i < level.size() / 2; ++i) level[i] = level[2 * i] + level[2 * i + 1];
      level.resize(level.size() / 2);
    }
    sums.push_back(level[0]);
  }
  return sums;
}

template <class T>
void check(int64_t ranks, int64_t columns, bool tree = false) {
  const std::vector<T> planes = normal<T>(ranks * columns, 1e3);
  const int64_t begin = uniform(0, columns), count = uniform(0, columns - begin);
  const std::vector<T> want =
      tree ? tree_reference(planes, ranks, columns, begin, count) : reference(planes, ranks, columns, begin, count);
  for (const int lanes : {1, 2, 5}) {
    Team& team = testing::team_of(lanes);
    SumPlanes g{kDtype<T>, reinterpret_cast<const std::byte*>(planes.data()), ranks, columns, begin, count, nullptr,
                tree};
    std::vector<T> sum(static_cast<size_t>(count) + 1, T(7));
    g.sum = reinterpret_cast<std::byte*>(sum.data());
    team.run(lanes, [&](const Lane& lane) { sum_planes(lane, g); });
    REQUIRE(sum.back() == T(7));
    sum.pop_back();
    REQUIRE(sum == want);

    // Sum into the columns of the last plane.
    std::vector<T> changed = planes;
    T* const own = changed.data() + (ranks - 1) * columns + begin;
    g.planes = reinterpret_cast<const std::byte*>(changed.data()), g.sum = reinterpret_cast<std::byte*>(own);
    team.run(lanes, [&](const Lane& lane) { sum_planes(lane, g); });
    std::vector<T> expected = planes;  // nothing but the columns of the sum has changed
    std::copy(want.begin(), want.end(), expected.begin() + (ranks - 1) * columns + begin);
    REQUIRE(changed == expected);
  }
}

// A meeting whose results are given.
class Given final : public Meeting {
 public:
  explicit Given(std::vector<Brought> brought) : brought_(std::move(brought)) {}
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return static_cast<int>(brought_.size()); }
  bool meet(const Brought&) noexcept override { return true; }
  bool took_place() const noexcept override { return true; }
  const Brought& of(int rank) const noexcept override { return brought_[static_cast<size_t>(rank)]; }
  Decision settle(bool) noexcept override { return Decision::kOpen; }
  Decision decision() const noexcept override { return Decision::kOpen; }
  bool finish() noexcept override { return true; }

 private:
  std::vector<Brought> brought_;
};

}  // namespace

TEST_CASE("planes are summed in rank order, at any place and on any number of lanes, and nothing else is touched") {
  for_each_isa([] {
    for (const int64_t columns : {1, 3, 16, 63, 1024, 1025, 5000}) {
      for (const int64_t ranks : {1, 2, 3, 8}) {
        check<float>(ranks, columns);
        check<double>(ranks, columns);
      }
    }
  });
}

TEST_CASE("planes are summed in a tree whose inner sums are those of ranks that share the planes") {
  for_each_isa([] {
    for (const int64_t columns : {1, 3, 255, 256, 257, 1025, 5000}) {
      for (const int64_t ranks : {1, 2, 4, 8, 16, 256}) {
        check<float>(ranks, columns, true);
        check<double>(ranks, columns, true);
      }
    }
  });
}

TEST_CASE("numbers are added in the same tree") {
  for (int64_t count = 1; count <= 64; count *= 2) {
    const std::vector<double> values = normal<double>(count, 1e3);
    const double want = tree_reference(values, count, 1, 0, 1)[0];
    const auto value = [&](int64_t i) { return values[static_cast<size_t>(i)]; };
    CHECK(tree_sum(0, count, value) == want);
    for (int64_t ranks = 1; ranks <= count;
         ranks *= 2) {  // each rank adds its own, and all ranks add what they have brought
      const int64_t each = count / ranks;
      CHECK(tree_sum(0, ranks, [&](int64_t r) { return tree_sum(r * each, each, value); }) == want);
    }
  }
  CHECK(tree_sum(0, 0, [](int64_t) { return 1.0; }) == 0);
  CHECK(tree_sum(0, 5, [](int64_t) { return 1.0; }) == 5);
}

TEST_CASE("the totals of a meeting add up losses in rank order, and have the first fault") {
  std::vector<Brought> brought(3);
  for (size_t r = 0; r < 3; ++r) {
    brought[r].loss_sum = 0.1 * static_cast<double>(r + 1), brought[r].loss_weight = static_cast<double>(r);
    brought[r].correct = 10, brought[r].largest = 2;
  }
  const MeetingTotals good = totals_of(Given(brought));
  CHECK(good.loss_sum == 0.1 + 0.1 * 2 + 0.1 * 3);
  CHECK(good.loss_weight == 3);
  CHECK(good.correct == 30);
  CHECK(good.bound == 6);
  CHECK(good.fault == Fault::kNone);
  brought[1].fault = static_cast<uint32_t>(Fault::kLabel), brought[2].fault = static_cast<uint32_t>(Fault::kNonFinite);
  CHECK(totals_of(Given(brought)).fault == Fault::kLabel);
}

TEST_CASE("a bound that is infinite, NaN or near the largest number is doubtful") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kFloat64}) {
    CHECK(may_overflow(kInfinity, dtype));
    CHECK(may_overflow(std::nan(""), dtype));
    CHECK(!may_overflow(1e30, dtype));
    CHECK(!may_overflow(0, dtype));
  }
  CHECK(may_overflow(1e38, Dtype::kFloat32));
  CHECK(!may_overflow(1e38, Dtype::kFloat64));
  CHECK(may_overflow(1e308, Dtype::kFloat64));
}
