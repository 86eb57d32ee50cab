#include "loader/array_source.h"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "runtime/team.h"

namespace gradring {

namespace {

// A column whose row has these elements, one after the other.
std::shared_ptr<const MemoryColumn> column(Dtype dtype, std::vector<int64_t> shape, int64_t length, const void* data,
                                           int64_t stride) {
  ArrayLayout layout{static_cast<const std::byte*>(data), {stride}, false};
  if (!shape.empty()) layout.strides.push_back(static_cast<int64_t>(size_of(dtype)));
  return std::make_shared<MemoryColumn>(FieldSpec{"x", dtype, std::move(shape)}, length, std::move(layout), nullptr);
}

struct Data {
  int64_t samples, width;
  std::vector<uint8_t> x;
  std::vector<int32_t> y;
  Data(int64_t n, int64_t w) : samples(n), width(w), x(static_cast<size_t>(n * w)), y(static_cast<size_t>(n)) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint8_t>(i * 37 + i / 256);
    for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<int32_t>(i);
  }
  std::vector<ArrayField> fields() const {
    return {{column(Dtype::kUint8, {width}, samples, x.data(), width), Dtype::kFloat32},
            {column(Dtype::kInt32, {}, samples, y.data(), 4), Dtype::kInt64}};
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

TEST_CASE("an epoch shows each sample once, converted, for any number of lanes") {
  for (int64_t n : {1, 5, 32, 100, 257}) {
    const Data data(n, 13);
    for (bool shuffle : {false, true}) {
      std::vector<int64_t> first;
      for (int lanes : {1, 2, 3}) {
        ArraySource source(data.fields(), {.samples = n, .batch_size = 32, .seed = 4, .epoch = 2, .shuffle = shuffle});
        const auto order = read_epoch(source, data, lanes);
        CHECK(order.size() == static_cast<size_t>(n));
        CHECK(std::set<int64_t>(order.begin(), order.end()).size() == order.size());
        if (first.empty()) first = order;
        CHECK(order == first);
      }
    }
  }
}

TEST_CASE("a call of fill may be for some of the rows, which its lanes divide") {
  const Data data(11, 5);
  ArraySource source(data.fields(), {.samples = 11, .batch_size = 11, .seed = 3, .shuffle = true});
  Batch batch;
  REQUIRE(source.next(&batch, kNoDeadline).ok());
  auto* const labels = static_cast<int64_t*>(const_cast<void*>(batch.fields[1]));
  std::fill(labels, labels + 11, -1);
  Batch part = batch;
  part.first = 3, part.rows = 5;
  for (int lane = 0; lane < 2; ++lane) source.fill({nullptr, lane, 2}, part);
  for (int64_t row = 0; row < 11; ++row) CHECK(labels[row] == (row >= 3 && row < 8 ? batch.samples[row] : -1));
}

TEST_CASE("drop_last leaves the short batch out; a start resumes exactly") {
  const Data data(100, 3);
  OrderOptions order{.samples = 100, .batch_size = 32, .seed = 1, .shuffle = true};
  ArraySource whole(data.fields(), order);
  const auto samples = read_epoch(whole, data, 1);
  order.drop_last = true;
  ArraySource dropped(data.fields(), order);
  CHECK(dropped.order().batches() == 3);
  CHECK(read_epoch(dropped, data, 1) == std::vector<int64_t>(samples.begin(), samples.begin() + 96));
  order.drop_last = false;
  order.start = 64;
  ArraySource resumed(data.fields(), order);
  CHECK(read_epoch(resumed, data, 1) == std::vector<int64_t>(samples.begin() + 64, samples.end()));
  order.start = 100;
  ArraySource beyond(data.fields(), order);
  CHECK(read_epoch(beyond, data, 1).empty());
}

TEST_CASE("ranks share an epoch, as the loader's order says, in order and shuffled, from any start") {
  const Data data(101, 3);
  for (const bool shuffle : {false, true}) {
    for (const bool pad : {false, true}) {
      for (const int64_t world : {1, 2, 3, 7}) {
        for (const int64_t start : {0, 42}) {
          std::multiset<int64_t> seen;
          for (int64_t rank = 0; rank < world; ++rank) {
            const OrderOptions options{.samples = 101,
                                       .batch_size = 8,
                                       .seed = 9,
                                       .epoch = 1,
                                       .rank = rank,
                                       .world_size = world,
                                       .start = start,
                                       .shuffle = shuffle,
                                       .pad = pad};
            ArraySource source(data.fields(), options);
            const auto got = read_epoch(source, data, 2);
            const Order order(options);
            std::vector<int64_t> expected;
            for (int64_t k = 0; k < order.batches(); ++k) {
              std::vector<int64_t> batch(static_cast<size_t>(order.rows(k)));
              order.samples(k, 0, order.rows(k), batch.data());
              expected.insert(expected.end(), batch.begin(), batch.end());
            }
            CHECK(got == expected);
            seen.insert(got.begin(), got.end());
          }
          if (!pad) CHECK(seen.size() == static_cast<size_t>(101 - start));
          if (!pad) CHECK(std::set<int64_t>(seen.begin(), seen.end()).size() == seen.size());
        }
      }
    }
  }
}

TEST_CASE("rows in order and of the wanted dtype are not copied") {
  std::vector<float> x(60);
  std::vector<int64_t> y(20);
  const std::vector<ArrayField> fields = {{column(Dtype::kFloat32, {3}, 20, x.data(), 12), Dtype::kFloat32},
                                          {column(Dtype::kInt64, {}, 20, y.data(), 8), Dtype::kInt64}};
  ArraySource source(fields, {.samples = 20, .batch_size = 8});
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
    ArraySource source({{column(Dtype::kFloat32, {3}, 10, data, stride), Dtype::kFloat64}},
                       {.samples = 10, .batch_size = 10});
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
  CHECK_THROWS_AS(ArraySource(data.fields(), {.samples = 4, .batch_size = 0}), Error);
  CHECK_THROWS_AS(ArraySource(data.fields(), {.samples = 5, .batch_size = 1}), Error);
  CHECK_THROWS_AS(ArraySource({}, {.samples = 4, .batch_size = 1}), Error);
  CHECK_THROWS_AS(ArraySource(data.fields(), {.samples = 4, .batch_size = 1, .start = -1}), Error);
  CHECK_THROWS_AS(ArraySource(data.fields(), {.samples = 4, .batch_size = 1, .rank = 2, .world_size = 2}), Error);
  auto fields = data.fields();
  fields[0].wanted = Dtype::kUint8;
  CHECK_THROWS_AS(ArraySource(fields, {.samples = 4, .batch_size = 1}), Error);
  const ArrayLayout apart{reinterpret_cast<const std::byte*>(data.x.data()), {2, 2}, false};
  const auto strided = std::make_shared<MemoryColumn>(FieldSpec{"x", Dtype::kUint8, {2}}, 4, apart, nullptr);
  CHECK_THROWS_AS(ArraySource({{strided, Dtype::kFloat32}}, {.samples = 4, .batch_size = 1}), Error);
}

TEST_CASE("the slots hold a rank's largest block, wherever the epoch begins") {
  for (int64_t samples = 1; samples < 20; ++samples) {
    const Data data(samples, 100);
    for (int64_t rank = 0; rank < 5; ++rank) {
      for (int64_t start = 0; start < samples; ++start) {  // of 8 samples rank 2 has one, of 7 two
        OrderOptions order{.samples = samples, .batch_size = 3, .rank = rank, .world_size = 5, .start = start};
        order.blocks = true;
        ArraySource source(data.fields(), order);
        int64_t rows = 0;
        for (int64_t k = 0; k < source.order().batches(); ++k) rows += source.order().rows(k);
        CHECK(static_cast<int64_t>(read_epoch(source, data, 1).size()) == rows);
      }
    }
  }
}

}  // namespace gradring
