#include "loader/array_source.h"

#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <vector>

namespace gradring {

namespace {

struct Data {
  int64_t samples, width;
  std::vector<uint8_t> x;
  std::vector<int32_t> y;
  Data(int64_t n, int64_t w) : samples(n), width(w), x(static_cast<size_t>(n * w)), y(static_cast<size_t>(n)) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint8_t>(i * 37 + i / 256);
    for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<int32_t>(i);
  }
  std::vector<ArrayField> fields() const {
    return {{x.data(), Dtype::kUint8, width, width, Dtype::kFloat32}, {y.data(), Dtype::kInt32, 1, 4, Dtype::kInt64}};
  }
};

// All batches of the epoch as (sample, row is right) pairs.
std::vector<int64_t> read_epoch(ArraySource& source, const Data& data, int lanes) {
  Team team(lanes);
  std::vector<int64_t> order;
  for (;;) {
    Batch batch;
    REQUIRE(source.next(&batch, kNoDeadline).ok());
    if (batch.rows == 0) return order;
    team.run(lanes, [&](const Lane& lane) { source.fill(lane, batch); });
    const auto* x = static_cast<const float*>(batch.fields[0]);
    const auto* y = static_cast<const int64_t*>(batch.fields[1]);
    for (int64_t row = 0; row < batch.rows; ++row) {
      const int64_t sample = batch.samples[row];
      CHECK(y[row] == sample);
      for (int64_t c = 0; c < data.width; ++c) {
        REQUIRE(x[row * data.width + c] == static_cast<float>(data.x[static_cast<size_t>(sample * data.width + c)]));
      }
      order.push_back(sample);
    }
    source.release(batch);
  }
}

}  // namespace

TEST_CASE("an epoch shows each sample once, converted, whatever the lanes") {
  for (int64_t n : {1, 5, 32, 100, 257}) {
    const Data data(n, 13);
    for (bool shuffle : {false, true}) {
      std::vector<int64_t> first;
      for (int lanes : {1, 2, 3}) {
        ArraySource source(data.fields(), n, {.batch_size = 32, .shuffle = shuffle, .seed = 4, .epoch = 2});
        const auto order = read_epoch(source, data, lanes);
        CHECK(order.size() == static_cast<size_t>(n));
        CHECK(std::set<int64_t>(order.begin(), order.end()).size() == order.size());
        if (first.empty()) first = order;
        CHECK(order == first);
      }
    }
  }
}

TEST_CASE("drop_last leaves the short batch out; start_batch resumes exactly") {
  const Data data(100, 3);
  ArraySource whole(data.fields(), 100, {.batch_size = 32, .shuffle = true, .seed = 1});
  const auto order = read_epoch(whole, data, 1);
  ArraySource dropped(data.fields(), 100, {.batch_size = 32, .shuffle = true, .drop_last = true, .seed = 1});
  CHECK(dropped.batches() == 3);
  CHECK(read_epoch(dropped, data, 1) == std::vector<int64_t>(order.begin(), order.begin() + 96));
  ArraySource resumed(data.fields(), 100, {.batch_size = 32, .shuffle = true, .seed = 1, .start_batch = 2});
  CHECK(read_epoch(resumed, data, 1) == std::vector<int64_t>(order.begin() + 64, order.end()));
  ArraySource beyond(data.fields(), 100, {.batch_size = 32, .start_batch = 9});
  CHECK(read_epoch(beyond, data, 1).empty());
}

TEST_CASE("rows in order and of the wanted dtype are not copied") {
  std::vector<float> x(60);
  std::vector<int64_t> y(20);
  const std::vector<ArrayField> fields = {{x.data(), Dtype::kFloat32, 3, 12, Dtype::kFloat32},
                                          {y.data(), Dtype::kInt64, 1, 8, Dtype::kInt64}};
  ArraySource source(fields, 20, {.batch_size = 8});
  Batch batch;
  for (int i = 0; i < 2; ++i) REQUIRE(source.next(&batch, kNoDeadline).ok());
  CHECK(batch.fields[0] == x.data() + 24);
  CHECK(batch.fields[1] == y.data() + 8);
}

TEST_CASE("rows may lie apart, backwards or unaligned") {
  std::vector<unsigned char> bytes(4 * 10 * 3 + 1);
  std::vector<float> x(120);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  std::memcpy(bytes.data() + 1, x.data(), 4 * 10 * 3);
  Team team(1);
  const auto check = [&](const void* data, int64_t stride, auto expected) {
    ArraySource source({{data, Dtype::kFloat32, 3, stride, Dtype::kFloat64}}, 10, {.batch_size = 10});
    Batch batch;
    REQUIRE(source.next(&batch, kNoDeadline).ok());
    team.run(1, [&](const Lane& lane) { source.fill(lane, batch); });
    for (int64_t i = 0; i < 30; ++i) CHECK(static_cast<const double*>(batch.fields[0])[i] == expected(i / 3, i % 3));
  };
  check(bytes.data() + 1, 12, [](int64_t r, int64_t c) { return static_cast<double>(r * 3 + c); });
  check(x.data(), 24, [](int64_t r, int64_t c) { return static_cast<double>(r * 6 + c); });
  check(x.data() + 27, -12, [](int64_t r, int64_t c) { return static_cast<double>((9 - r) * 3 + c); });
}

TEST_CASE("misuse is refused") {
  const Data data(4, 2);
  CHECK_THROWS_AS(ArraySource(data.fields(), 4, {.batch_size = 0}), Error);
  CHECK_THROWS_AS(ArraySource({}, 4, {.batch_size = 1}), Error);
  CHECK_THROWS_AS(ArraySource(data.fields(), 4, {.batch_size = 1, .start_batch = -1}), Error);
  auto fields = data.fields();
  fields[0].wanted = Dtype::kUint8;
  CHECK_THROWS_AS(ArraySource(fields, 4, {.batch_size = 1}), Error);
}

}  // namespace gradring
