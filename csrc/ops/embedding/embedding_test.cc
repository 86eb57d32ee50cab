#include "ops/embedding/embedding.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "ops/embedding/embedding_ref.h"
#include "ops/testing.h"

using namespace gradring;
using gradring::testing::normal;
using gradring::testing::uniform;

namespace {

std::vector<int64_t> random_ids(int64_t count, int64_t low, int64_t high) {
  std::vector<int64_t> ids(static_cast<size_t>(count));
  for (int64_t& id : ids) id = uniform(low, high);
  return ids;
}

int64_t first_outside(const std::vector<int64_t>& ids, int64_t rows) {
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= rows) return static_cast<int64_t>(i);
  return -1;
}

// Runs the op on int64 and on int32, which must agree.
template <class T>
std::vector<T> forward(const std::vector<int64_t>& ids, const std::vector<T>& table, int64_t rows, int64_t columns,
                       int lanes) {
  const std::vector<int32_t> narrow(ids.begin(), ids.end());
  const size_t size = ids.size() * static_cast<size_t>(columns);
  std::vector<T> y(size + 1, T(77)), y_narrow = y;
  Team& team = testing::team_of(lanes);
  for (const bool wide : {true, false}) {
    int64_t fault = 99;
    EmbeddingArguments g;
    g.count = static_cast<int64_t>(ids.size()), g.rows = rows, g.row_bytes = columns * int64_t(sizeof(T));
    g.ids = {wide ? static_cast<const void*>(ids.data()) : narrow.data(), wide};
    g.table = table.data(), g.y = wide ? y.data() : y_narrow.data(), g.fault = &fault;
    team.run(lanes, [&](const Lane& lane) { embedding(lane, g); });
    REQUIRE(fault == first_outside(ids, rows));
  }
  REQUIRE(y.back() == T(77));
  REQUIRE(y == y_narrow);
  y.pop_back();
  return y;
}

template <class T>
std::vector<T> backward(const std::vector<int64_t>& ids, const std::vector<T>& dy, int64_t rows, int64_t columns,
                        int lanes) {
  std::vector<T> dtable(static_cast<size_t>(rows * columns) + 1, T(77));
  int64_t fault = 99;
  EmbeddingVjpArguments<T> g;
  g.count = static_cast<int64_t>(ids.size()), g.rows = rows, g.columns = columns;
  g.ids = {ids.data(), true}, g.dy = dy.data(), g.dtable = dtable.data(), g.fault = &fault;
  Team& team = testing::team_of(lanes);
  team.reserve(0, embedding_vjp_scratch(g.count, rows).shared);
  team.run(lanes, [&](const Lane& lane) { embedding_vjp(lane, g); });
  REQUIRE(fault == first_outside(ids, rows));
  REQUIRE(dtable.back() == T(77));
  dtable.pop_back();
  return dtable;
}

template <class T>
void check(const std::vector<int64_t>& ids, int64_t rows, int64_t columns) {
  CAPTURE(ids.size());
  CAPTURE(rows);
  CAPTURE(columns);
  const auto table = normal<T>(rows * columns);
  const auto dy = normal<T>(static_cast<int64_t>(ids.size()) * columns);
  REQUIRE(forward(ids, table, rows, columns, 1) == reference::embedding(ids, table, rows, columns));
  std::vector<double> sizes;
  const std::vector<double> want = reference::embedding_vjp(ids, dy, rows, columns, &sizes);
  const std::vector<T> got = backward(ids, dy, rows, columns, 1);
  const double eps = double(std::numeric_limits<T>::epsilon());
  for (size_t i = 0; i < want.size(); ++i) {
    // The vjp adds 32 terms at a time, and then the sums of these blocks.
    REQUIRE(std::fabs(got[i] - want[i]) <= eps * (32 + double(ids.size()) / 32) * sizes[i]);
  }
}

template <class T>
void check_sizes() {
  for (const int64_t columns : {1, 3, 4, 8, 15, 16, 17, 33, 64, 65, 130, 0}) {
    for (const int64_t rows : {1, 2, 7, 40}) {
      for (const int64_t count : {0, 1, 31, 33, 200}) check<T>(random_ids(count, 0, rows - 1), rows, columns);
    }
  }
  check<T>({}, 0, 5);
  check<T>(std::vector<int64_t>(1000, 3), 5, 7);  // one row has every id
}

}  // namespace

TEST_CASE("embedding agrees with the reference at every level, for odd sizes") {
  testing::for_each_isa([] {
    check_sizes<float>();
    check_sizes<double>();
  });
}

TEST_CASE("an id outside the table reads zeros, adds nothing and is reported") {
  testing::for_each_isa([] {
    for (const int64_t bad : {int64_t(-1), int64_t(5), int64_t(2147483647), int64_t(-2147483648)}) {
      std::vector<int64_t> ids = random_ids(40, 0, 4);
      ids[23] = ids[30] = bad;
      check<float>(ids, 5, 19);
      check<double>(ids, 5, 3);
    }
    check<float>({0, 1}, 0, 4);  // a table without rows
  });
  // Ids beyond 32 bits, which would name a row if they were truncated.
  std::vector<float> dtable = backward<float>({int64_t(1) << 32, 1}, {1, 2}, 2, 1, 1);
  REQUIRE(dtable == std::vector<float>{0, 2});
}

TEST_CASE("embedding has the same bits for any number of lanes") {
  testing::for_each_isa([] {
    const std::vector<int64_t> ids = random_ids(977, 0, 60);
    const auto table = normal<float>(61 * 200), dy = normal<float>(977 * 200);
    const auto y = forward(ids, table, 61, 200, 1), dtable = backward(ids, dy, 61, 200, 1);
    for (const int lanes : {2, 3, 7}) {
      REQUIRE(forward(ids, table, 61, 200, lanes) == y);
      REQUIRE(backward(ids, dy, 61, 200, lanes) == dtable);
    }
  });
}
