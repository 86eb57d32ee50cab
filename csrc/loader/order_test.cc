#include "loader/order.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace gradring {

namespace {

std::vector<int64_t> read(const Order& order, int64_t batch) {
  std::vector<int64_t> samples(static_cast<size_t>(order.rows(batch)));
  order.samples(batch, 0, order.rows(batch), samples.data());
  return samples;
}

void append(std::vector<int64_t>* to, const std::vector<int64_t>& from) {
  to->insert(to->end(), from.begin(), from.end());
}

}  // namespace

TEST_CASE("all ranks together cover every sample exactly once") {
  for (int64_t n : {0, 1, 7, 64, 100, 1001}) {
    for (int64_t world : {1, 2, 3, 5}) {
      for (int64_t batch : {1, 8, 200}) {
        CAPTURE(n);
        CAPTURE(world);
        CAPTURE(batch);
        std::vector<int64_t> seen;
        for (int64_t rank = 0; rank < world; ++rank) {
          const Order order({.samples = n,
                             .batch_size = batch,
                             .seed = 1,
                             .epoch = 2,
                             .rank = rank,
                             .world_size = world,
                             .shuffle = true});
          for (int64_t k = 0; k < order.batches(); ++k) append(&seen, read(order, k));
          CHECK(order.rows(order.batches()) == 0);
        }
        std::sort(seen.begin(), seen.end());
        REQUIRE(seen.size() == static_cast<size_t>(n));
        for (int64_t i = 0; i < n; ++i) REQUIRE(seen[static_cast<size_t>(i)] == i);
      }
    }
  }
}

TEST_CASE("padding and dropping give every rank the same number of rows") {
  for (int64_t n : {1, 7, 100, 101}) {
    for (int64_t world : {2, 3, 8}) {
      OrderOptions options{.samples = n, .batch_size = 4, .world_size = world, .pad = true};
      std::vector<int64_t> interleaved;
      for (int64_t rank = 0; rank < world; ++rank) {
        options.rank = rank;
        const Order order(options);
        int64_t rows = 0;
        for (int64_t k = 0; k < order.batches(); ++k) {
          const auto samples = read(order, k);
          // The samples are those of torch's DistributedSampler without shuffling: rank, rank + world, ... of 0 .. n -
          // 1, 0, 1, ...
          for (int64_t s : samples) CHECK(s == (rank + rows++ * world) % n);
        }
        CHECK(rows == (n + world - 1) / world);
      }
      options.pad = false;
      options.drop_last = true;
      for (int64_t rank = 0; rank < world; ++rank) {
        options.rank = rank;
        CHECK(Order(options).batches() == n / (4 * world));
      }
    }
  }
}

TEST_CASE("a resume goes on exactly where all ranks stopped, also with other ranks and batch sizes") {
  const int64_t n = 1003;
  for (int64_t world : {1, 2, 4}) {
    for (int64_t next_world : {1, 3}) {
      std::vector<int64_t> seen;
      OrderOptions options{.samples = n, .batch_size = 10, .seed = 5, .world_size = world, .shuffle = true};
      int64_t start = 0;
      for (int64_t rank = 0; rank < world; ++rank) {
        options.rank = rank;
        const Order order(options);
        for (int64_t k = 0; k < 7; ++k) append(&seen, read(order, k));
        start = order.start_after(7);
      }
      CHECK(start == 70 * world);
      options = {.samples = n, .batch_size = 13, .seed = 5, .world_size = next_world, .start = start, .shuffle = true};
      for (int64_t rank = 0; rank < next_world; ++rank) {
        options.rank = rank;
        const Order order(options);
        for (int64_t k = 0; k < order.batches(); ++k) append(&seen, read(order, k));
        CHECK(order.start_after(order.batches()) <= n);
        CHECK(order.start_after(order.batches() + 1) == n);
      }
      std::sort(seen.begin(), seen.end());
      REQUIRE(seen.size() == static_cast<size_t>(n));
      for (int64_t i = 0; i < n; ++i) REQUIRE(seen[static_cast<size_t>(i)] == i);
    }
  }
}

TEST_CASE("parts of a batch are parts of the whole") {
  const Order order({.samples = 97, .batch_size = 20, .seed = 3, .rank = 1, .world_size = 2, .shuffle = true});
  for (int64_t k = 0; k < order.batches(); ++k) {
    const auto whole = read(order, k);
    std::vector<int64_t> parts(whole.size());
    for (int64_t first = 0; first < order.rows(k); first += 7) {
      order.samples(k, first, std::min<int64_t>(7, order.rows(k) - first), parts.data() + first);
    }
    CHECK(parts == whole);
  }
}

TEST_CASE("numbers as large as int64 can say mean what they say") {
  constexpr int64_t kMost = INT64_MAX;
  // Compares orders of random (samples, batch_size, world_size) with the same arithmetic in 128 bits.
  std::mt19937_64 random(std::random_device{}());
  const auto draw = [&](int64_t most) {
    const auto bits = static_cast<int64_t>(random() >> (1 + random() % 63));
    return random() % 4 == 0 ? most : std::clamp<int64_t>(bits, 1, most);
  };
  for (int trial = 0; trial < 20000; ++trial) {
    OrderOptions o;
    o.samples = draw(kMost);
    o.batch_size = draw(kMost);
    o.world_size = draw(int64_t{1} << 31);
    o.rank = static_cast<int64_t>(random() % static_cast<uint64_t>(o.world_size));
    o.start = random() % 2 ? 0 : static_cast<int64_t>(random() % static_cast<uint64_t>(o.samples));
    o.pad = random() % 2;
    o.drop_last = random() % 2;
    o.shuffle = random() % 2;
    REQUIRE(Order::check(o).ok());
    const Order order(o);
    using Wide = __int128;
    const Wide left = Wide{o.samples} - o.start, w = o.world_size, b = o.batch_size;
    const Wide even = (left + w - 1) / w;
    Wide rows = o.pad ? even : left > o.rank ? (left - o.rank + w - 1) / w : 0;
    if (o.drop_last) rows = o.pad ? even / b * b : left / w / b * b;
    const Wide batches = (rows + b - 1) / b;
    REQUIRE(Wide{order.batches()} == batches);
    REQUIRE(order.rows(order.batches()) == 0);
    for (const int64_t k : {int64_t{0}, order.batches() / 2, order.batches() - 1}) {
      if (k < 0 || k >= order.batches()) continue;
      const Wide first = o.start + Wide{k} * b * w + o.rank;
      REQUIRE(Wide{order.rows(k)} == std::min(b, rows - Wide{k} * b));
      REQUIRE(static_cast<uint64_t>(order.position(k)) == static_cast<uint64_t>(first));
      REQUIRE(Wide{order.start_after(k)} == std::min(Wide{o.samples}, o.start + Wide{k} * b * w));
      const int64_t from = std::max<int64_t>(order.rows(k) - 3, 0);
      int64_t got[3];
      order.samples(k, from, order.rows(k) - from, got);
      for (int64_t i = 0; i < order.rows(k) - from; ++i) {
        const Wide position = (first + (Wide{from} + i) * w) % o.samples;
        REQUIRE(got[i] >= 0);
        REQUIRE(got[i] < o.samples);
        if (!o.shuffle) REQUIRE(Wide{got[i]} == position);
      }
    }
    REQUIRE(order.start_after(kMost) == o.samples);
  }
}

TEST_CASE("blocks of a batch lie beside each other, and all ranks together read what one rank reads") {
  for (const bool shuffle : {false, true}) {
    for (const bool drop_last : {false, true}) {
      for (const int64_t n : {1, 7, 16, 64, 100, 203}) {
        for (const int64_t start : {int64_t{0}, n / 3}) {
          OrderOptions one{.samples = n, .batch_size = 24, .seed = 9, .start = start, .shuffle = shuffle};
          one.drop_last = drop_last;
          const Order whole(one);
          for (const int64_t world : {1, 2, 3, 4, 8}) {
            OrderOptions options = one;
            options.batch_size = 24 / world, options.world_size = world, options.blocks = true;
            REQUIRE(Order::check(options).ok());
            for (int64_t k = 0; k < whole.batches(); ++k) {
              std::vector<int64_t> together;
              for (int64_t rank = 0; rank < world; ++rank) {
                options.rank = rank;
                const Order order(options);
                REQUIRE(order.batches() == whole.batches());
                REQUIRE(order.whole_rows(k) == whole.rows(k));
                const int64_t begin = whole.rows(k) * rank / world;
                REQUIRE(order.rows(k) == whole.rows(k) * (rank + 1) / world - begin);
                REQUIRE(order.position(k) == whole.position(k) + begin);
                REQUIRE(order.start_after(k) == whole.start_after(k));
                append(&together, read(order, k));
              }
              REQUIRE(together == read(whole, k));
            }
          }
        }
      }
    }
  }
  CHECK(!Order::check({.samples = 4, .blocks = true, .pad = true}).ok());
  const OrderOptions large{.samples = INT64_MAX, .batch_size = INT64_MAX, .rank = 2, .world_size = 3, .blocks = true};
  CHECK(Order(large).batches() == 1);
  CHECK(Order(large).position(0) + Order(large).rows(0) == INT64_MAX);
}

TEST_CASE("misuse is named") {
  CHECK(!Order::check({.samples = 4, .batch_size = 0}).ok());
  CHECK(!Order::check({.samples = 4, .rank = 2, .world_size = 2}).ok());
  CHECK(!Order::check({.samples = 4, .start = 5}).ok());
  CHECK(Order::check({.samples = 4, .start = 4}).ok());
}

}  // namespace gradring
