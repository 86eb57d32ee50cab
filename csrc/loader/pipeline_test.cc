#include "loader/pipeline.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "loader/column_source.h"
#include "loader/pipeline_testing.h"
#include "loader/sources/open_file.h"

namespace gradring {

using namespace pipeline_testing;

TEST_CASE("the stream is the same for any number of workers and any depth") {
  auto source = std::make_shared<Counting>(1003, 9);
  OrderOptions order{.samples = 1003, .batch_size = 10, .seed = 3, .epoch = 1, .shuffle = true};
  std::vector<int64_t> expected(1003);
  Order(order).samples(0, 0, 10, expected.data());
  std::vector<int64_t> first;
  for (const Crew& crew :
       {Crew{0}, Crew{1}, Crew{2}, Crew{5}, Crew{1, 0, true}, Crew{1, 1, true}, Crew{3, 2, true}, Crew{1, 1, false, 4},
        Crew{3, 3, false, 3}, Crew{2, 2, true, 10}, Crew{2, 0, true, 3}, Crew{2, 1, true, 99}}) {
    for (uint32_t cells : {1u, 2u, 3u, 8u}) {
      Pipeline pipeline(source, source->fields(), options(10, crew, cells));
      for (int epoch = 0; epoch < 3; ++epoch) {
        pipeline.start(order, false);
        const auto seen = read_all(pipeline);
        if (first.empty()) first = seen;
        REQUIRE(seen == first);
        REQUIRE(std::equal(seen.begin(), seen.begin() + 10, expected.begin()));
      }
      CHECK(pipeline.held() == 0);
      CHECK(pipeline.counters().rows == 3009);
    }
  }
}

TEST_CASE("the depth grows within a pass where batches take uneven time, and the stream does not change") {
  auto source = std::make_shared<Counting>(3000, 2);
  source->slow_every = 48;  // with 2 samples per batch, one of 24 batches takes as long as the others together
  source->sleep_us = 6000;
  for (const Crew& crew : {Crew{1}, Crew{2, 1, true}, Crew{2, 2, false, 2}}) {
    PipelineOptions o = options(2, crew, 32);
    o.ahead = 2;
    Pipeline pipeline(source, source->fields(), o);
    OrderOptions order{.samples = 3000, .batch_size = 2};
    pipeline.start(order, false);
    CHECK(pipeline.ahead() == 2);
    CHECK(pipeline.slots()->slots() == 2);
    std::vector<int64_t> seen;
    uint32_t most = 0;
    Delivery got;
    while (pipeline.next(&got, deadline_in(seconds(20))) == Delivered::kBatch) {
      for (int64_t sample : check_batch(pipeline, got)) seen.push_back(sample);
      pipeline.slots()->give(got.slot);
      CHECK(pipeline.held() == 0);
      most = std::max(most, pipeline.ahead());
      usleep(300);
    }
    std::vector<int64_t> all(3000);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
    CHECK(seen == all);
    CHECK(most > 2);
    CHECK(pipeline.slots()->slots() <= most + kSpareSlots);
  }
}

TEST_CASE("a worker that sleeps is woken for several batches at a time") {
  auto source = std::make_shared<Counting>(400, 2);
  Pipeline pipeline(source, source->fields(), options(4, {1}, 4));
  pipeline.start({.samples = 400, .batch_size = 4}, false);
  const Ring<> ring = pipeline.control().ring(0);
  const auto take = [&] {
    Delivery got;
    REQUIRE(pipeline.next(&got, deadline_in(seconds(20))) == Delivered::kBatch);
    pipeline.slots()->give(got.slot);
  };
  for (uint64_t asleep_at = 4; asleep_at < 100; asleep_at += 3) {
    const Deadline deadline = deadline_in(seconds(20));
    while (!ring.sleeper(asleep_at) && Clock::now() < deadline) usleep(100);
    REQUIRE(ring.sleeper(asleep_at));  // the worker has filled every batch that is allowed
    take();
    take();
    REQUIRE(ring.sleeper(asleep_at));
    take();
    REQUIRE_FALSE(ring.sleeper(asleep_at));
  }
}

TEST_CASE("a run may be left at any batch and taken up from there") {
  auto source = std::make_shared<Counting>(500, 3);
  OrderOptions order{.samples = 500, .batch_size = 7, .seed = 3, .shuffle = true};
  Pipeline pipeline(source, source->fields(), options(7, Crew{3}, 4));
  pipeline.start(order, false);
  const auto whole = read_all(pipeline);
  for (int leave = 0; leave < 60; leave += 3) {
    order.start = 0;
    pipeline.start(order, false);
    std::vector<int64_t> seen;
    for (int i = 0; i < leave; ++i) {
      Delivery got;
      REQUIRE(pipeline.next(&got, deadline_in(seconds(20))) == Delivered::kBatch);
      CHECK(got.position == i * 7);
      for (int64_t sample : check_batch(pipeline, got)) seen.push_back(sample);
      pipeline.slots()->give(got.slot);
    }
    order.start = pipeline.order().start_after(pipeline.delivered());
    pipeline.start(order, false);
    for (int64_t sample : read_all(pipeline)) seen.push_back(sample);
    REQUIRE(seen == whole);
  }
}

TEST_CASE("batches that are held stay as they are; beyond the budget the consumer is told") {
  auto source = std::make_shared<Counting>(400, 50);
  OrderOptions order{.samples = 400, .batch_size = 10};
  for (const Crew& crew :
       {Crew{0}, Crew{2}, Crew{2, 0, true}, Crew{2, 2, true}, Crew{2, 2, true, 3}, Crew{2, 2, false, 10}}) {
    const size_t slot = SlotLayout(source->fields(), 10).bytes;
    Pipeline pipeline(source, source->fields(), options(10, crew, 3, slot * 12));
    pipeline.start(order, false);
    std::vector<Delivery> held;
    Delivery got;
    Delivered result;
    while ((result = pipeline.next(&got, deadline_in(seconds(20)))) == Delivered::kBatch) held.push_back(got);
    CHECK(result == Delivered::kHeld);
    CHECK(held.size() == (crew.workers ? 9u : 12u));
    CHECK(pipeline.held() == held.size());
    for (size_t i = 0; i < held.size(); ++i) CHECK(check_batch(pipeline, held[i])[0] == static_cast<int64_t>(i) * 10);
    pipeline.slots()->give(held[4].slot);
    REQUIRE(pipeline.next(&got, deadline_in(seconds(20))) == Delivered::kBatch);
    CHECK(check_batch(pipeline, got)[0] == static_cast<int64_t>(held.size()) * 10);
    CHECK(pipeline.next(&got, deadline_in(seconds(20))) == Delivered::kHeld);
  }
}

TEST_CASE("a failure comes after all earlier batches, with its sample") {
  auto source = std::make_shared<Counting>(300, 3);
  source->fails_every = 107;  // sample 106 is the first that fails
  for (const Crew& crew : {Crew{0}, Crew{1}, Crew{4}, Crew{1, 0, true}, Crew{2, 2, true}, Crew{1, 1, false, 4},
                           Crew{4, 4, false, 3}, Crew{2, 1, true, 8}}) {
    Pipeline pipeline(source, source->fields(), options(8, crew, 4));
    std::atomic<int> told{0};
    pipeline.on_failure([&](uint64_t ticket, const PartBlock&) { told += ticket == 13; });
    for (int epoch = 0; epoch < 2; ++epoch) {
      pipeline.start({.samples = 300, .batch_size = 8}, false);
      Delivered how;
      CHECK(read_all(pipeline, &how).size() == 104);
      CHECK(how == Delivered::kFailed);
      CHECK(pipeline.failed_part().failed_sample == 106);
      CHECK(std::string(pipeline.failed_part().status.message()) == "sample 106 is bad");
      CHECK(pipeline.delivered() == 13);
    }
    CHECK(told == 2);
  }
}

TEST_CASE("bad samples can be skipped, also whole batches of them") {
  auto source = std::make_shared<Counting>(300, 3);
  for (int64_t every : {1, 2, 5, 300}) {
    source->fails_every = every;
    for (const Crew& crew :
         {Crew{0}, Crew{3}, Crew{1, 0, true}, Crew{3, 3, true}, Crew{3, 3, true, 3}, Crew{2, 2, false, 8}}) {
      Pipeline pipeline(source, source->fields(), options(8, crew, 4));
      pipeline.start({.samples = 300, .batch_size = 8}, true);
      const auto seen = read_all(pipeline);
      CHECK(seen.size() == static_cast<size_t>(300 - 300 / every));
      for (int64_t sample : seen) CHECK(sample % every != every - 1);
      CHECK(pipeline.counters().skipped == static_cast<uint64_t>(300 / every));
      CHECK(pipeline.held() == 0);
    }
  }
}

TEST_CASE("a consumer that fills batches itself passes over those without rows") {
  auto source = std::make_shared<Counting>(2000, 1);
  source->fails_every = 1;
  Pipeline pipeline(source, source->fields(), options(2, Crew{2, 2, true}, 3));
  for (int epoch = 0; epoch < 100; ++epoch) {
    pipeline.start({.samples = 2000, .batch_size = 2, .epoch = static_cast<uint64_t>(epoch)}, true);
    REQUIRE(read_all(pipeline).empty());
  }
  CHECK(pipeline.counters().skipped == 100 * 2000);
}

TEST_CASE("a deadline passes while a worker is slow") {
  auto source = std::make_shared<Counting>(100, 3);
  source->sleep_us = 400000;
  Pipeline pipeline(source, source->fields(), options(10, Crew{1}, 2));
  pipeline.start({.samples = 100, .batch_size = 10}, false);
  Delivery got;
  CHECK(pipeline.next(&got, deadline_in(milliseconds(1))) == Delivered::kTimeout);
  CHECK(pipeline.waited_stripe() == 0);
  CHECK(pipeline.next(&got, deadline_in(seconds(20))) == Delivered::kBatch);
}

TEST_CASE("a file that shrinks fails its batch, which a worker or the consumer reads") {
  char name[] = "pipeline_test_XXXXXX";
  const int fd = mkstemp(name);
  REQUIRE(fd >= 0);
  const std::vector<int64_t> numbers(40000, 5);
  REQUIRE(write(fd, numbers.data(), numbers.size() * 8) == static_cast<ssize_t>(numbers.size() * 8));
  HeaderField field;
  field.dtype = Dtype::kInt64;
  for (uint32_t workers : {0u, 1u, 3u}) {
    REQUIRE(ftruncate(fd, 40000 * 8) == 0);
    const auto source = std::make_shared<ColumnSource>(open_raw(name, {field}, 8, 0).columns);
    Pipeline pipeline(source, source->fields(), options(1000, Crew{workers}, 3));
    REQUIRE(ftruncate(fd, 25500 * 8) == 0);
    pipeline.start({.samples = 40000, .batch_size = 1000}, false);
    Delivery got;
    Delivered result;
    int64_t batches = 0;
    while ((result = pipeline.next(&got, deadline_in(seconds(20)))) == Delivered::kBatch) {
      pipeline.slots()->give(got.slot);
      ++batches;
    }
    CHECK(result == Delivered::kFailed);
    CHECK(batches == 25);
    CHECK(pipeline.failed_part().status.code() == Code::kIo);
  }
  close(fd);
  unlink(name);
}

}  // namespace gradring
