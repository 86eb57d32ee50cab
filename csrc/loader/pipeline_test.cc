#include "loader/pipeline.h"

#include <doctest/doctest.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <thread>
#include <vector>

#include "loader/column_source.h"
#include "loader/sources/open_file.h"
#include "runtime/testing.h"

namespace gradring {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A source whose sample s is {s, s * 7, ...} and a label s. Some samples fail, and some take long.
class Counting final : public Source {
 public:
  Counting(int64_t length, int64_t width)
      : length_(length), fields_{{"x", Dtype::kInt64, {width}}, {"y", Dtype::kInt32, {}}} {}
  int64_t length() const noexcept override { return length_; }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }
  size_t scratch_bytes() const noexcept override { return 128; }
  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override {
    std::memset(request.scratch, 1, 128);
    const int64_t width = fields_[0].shape[0];
    auto* x = reinterpret_cast<int64_t*>(request.fields[0]);
    auto* y = reinterpret_cast<int32_t*>(request.fields[1]);
    for (int64_t row = 0; row < request.rows; ++row) {
      const int64_t sample = request.samples[row];
      if (fails_every > 0 && sample % fails_every == fails_every - 1) {
        *failed_row = row;
        return Status(Code::kIo, "sample %lld is bad", static_cast<long long>(sample));
      }
      if (sleep_us > 0 && sample % slow_every == 0) usleep(static_cast<unsigned>(sleep_us));
      for (int64_t i = 0; i < width; ++i) x[row * width + i] = sample * 7 + i;
      y[row] = static_cast<int32_t>(sample);
    }
    return {};
  }
  int64_t fails_every = 0;
  int sleep_us = 0;
  int64_t slow_every = 1;

 private:
  int64_t length_;
  std::vector<FieldSpec> fields_;
};

// How many workers there are, how many are active (-1: all), whether the consumer helps, and the parts of a batch.
struct Crew {
  uint32_t workers = 0;
  int active = -1;
  bool help = false;
  uint32_t parts = 1;
};

PipelineOptions options(int64_t batch, const Crew& crew, uint32_t cells, size_t budget = 0) {
  PipelineOptions o;
  o.batch_size = batch;
  o.workers = crew.workers;
  o.active = crew.active < 0 ? crew.workers : static_cast<uint32_t>(crew.active);
  o.help = crew.help;
  o.parts = crew.parts;
  o.cells = cells;
  o.memory_budget = budget;
  return o;
}

// Returns the batch's samples, and checks that the rows are theirs.
std::vector<int64_t> check_batch(const Pipeline& pipeline, const Delivery& got) {
  const std::byte* slot = pipeline.slots()->data(got.slot);
  const auto* samples = reinterpret_cast<const int64_t*>(slot);
  const auto* x = reinterpret_cast<const int64_t*>(slot + pipeline.layout().offsets[0]);
  const auto* y = reinterpret_cast<const int32_t*>(slot + pipeline.layout().offsets[1]);
  const auto width = static_cast<int64_t>(pipeline.layout().row_bytes[0] / 8);
  bool right = true;
  for (int64_t row = 0; row < got.rows; ++row) {
    for (int64_t i = 0; i < width; ++i) right = right && x[row * width + i] == samples[row] * 7 + i;
    right = right && y[row] == samples[row];
  }
  REQUIRE(right);
  return {samples, samples + got.rows};
}

std::vector<int64_t> read_all(Pipeline& pipeline, Delivered* how = nullptr) {
  std::vector<int64_t> order;
  for (;;) {
    Delivery got;
    const Delivered result = pipeline.next(&got, deadline_in(seconds(20)));
    if (result != Delivered::kBatch) {
      if (how)
        *how = result;
      else
        REQUIRE(result == Delivered::kEnd);
      return order;
    }
    for (int64_t sample : check_batch(pipeline, got)) order.push_back(sample);
    pipeline.slots()->give(got.slot);
  }
}

}  // namespace

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

TEST_CASE("close from another thread ends a wait") {
  auto source = std::make_shared<Counting>(100, 3);
  source->sleep_us = 20000;
  Pipeline pipeline(source, source->fields(), options(10, Crew{1}, 2));
  pipeline.start({.samples = 100, .batch_size = 10}, false);
  std::thread closer([&] {
    usleep(20000);
    pipeline.close();
  });
  Delivered how;
  read_all(pipeline, &how);
  CHECK(how == Delivered::kClosed);
  closer.join();
  CHECK_THROWS_AS(pipeline.start({.samples = 100, .batch_size = 10}, false), Error);
}

TEST_CASE("close and stop from another thread, while passes start, change nothing but what they end") {
  for (int trial = 0; trial < 50; ++trial) {
    auto source = std::make_shared<Counting>(60, 3);
    Pipeline pipeline(source, source->fields(), options(4, Crew{2}, 3));
    std::atomic<bool> begun{false};
    std::thread other([&] {
      while (!begun.load(std::memory_order_acquire)) std::this_thread::yield();
      for (int i = 0; i < 200; ++i) pipeline.stop();
      pipeline.close();
    });
    begun.store(true, std::memory_order_release);
    Delivered how = Delivered::kEnd;
    try {
      for (;;) {
        pipeline.start({.samples = 60, .batch_size = 4}, false);
        how = Delivered::kEnd;
        CHECK(read_all(pipeline, &how).size() <= 60);
      }
    } catch (const Error& error) {
      CHECK(error.code() == Code::kClosed);
    }
    other.join();
    Delivery got;
    CHECK(pipeline.next(&got, deadline_in(seconds(20))) == Delivered::kClosed);
  }
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

TEST_CASE("starting over, stopping and destroying at any moment hangs nothing") {
  auto source = std::make_shared<Counting>(200, 20);
  for (int round = 0; round < 60; ++round) {
    Pipeline pipeline(
        source, source->fields(),
        options(4, Crew{1u + static_cast<uint32_t>(round) % 4, -1, round % 2 == 1, 1u + round / 7 % 3}, 1 + round % 5));
    for (int start = 0; start < 5; ++start) {
      pipeline.start({.samples = 200, .batch_size = 4}, false);
      for (int i = 0; i < (round * 7 + start) % 20; ++i) {
        Delivery got;
        REQUIRE(pipeline.next(&got, deadline_in(seconds(20))) == Delivered::kBatch);
        pipeline.slots()->give(got.slot);
      }
    }
  }
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

TEST_CASE("a forked child is told, and ends without its parent's threads") {
  auto source = std::make_shared<Counting>(200, 20);
  auto pipeline = std::make_unique<Pipeline>(source, source->fields(), options(4, Crew{2}, 3));
  pipeline->start({.samples = 200, .batch_size = 4}, false);
  CHECK(testing::exit_of_child([&] {
          bool told = false;
          try {
            pipeline->start({.samples = 200, .batch_size = 4}, false);
          } catch (const Error& error) {
            told = error.code() == Code::kUnavailable;
          }
          pipeline->stop();
          pipeline->close();
          pipeline.reset();
          return told ? 0 : 1;
        }) == 0);
  CHECK(read_all(*pipeline).size() == 200);
}

TEST_CASE("a child that is forked while a pipeline starts its threads ends without them" *
          doctest::skip(testing::kSanitized)) {
  auto source = std::make_shared<Counting>(200, 20);
  for (int turn = 0; turn < 20; ++turn) {
    auto pipeline = std::make_unique<Pipeline>(source, source->fields(), options(4, Crew{9}, 3));
    std::thread consumer([&] { pipeline->start({.samples = 200, .batch_size = 4}, false); });
    CHECK(testing::exit_of_child([&] {
            alarm(20);
            pipeline.reset();
            return 0;
          }) == 0);
    consumer.join();
    CHECK(read_all(*pipeline).size() == 200);
  }
}

TEST_CASE("a pipeline goes on with the threads that the system grants, and asks for the others again" *
          doctest::skip(testing::kSanitized)) {
  constexpr uint32_t kWorkers = 24;
  const auto threads = [] {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return std::distance(begin(tasks), end(tasks)) - 1;
  };
  for (const bool none : {false, true}) {
    for (const uint32_t parts : {1u, 3u}) {
      CAPTURE(none);
      CAPTURE(parts);
      CHECK(testing::exit_of_child([&] {
              pthread_attr_t large;  // stacks that glibc has not cached, and that the limit does not allow
              if (pthread_attr_init(&large) != 0 || pthread_attr_setstacksize(&large, size_t{64} << 20) != 0) return 1;
              if (none && pthread_setattr_default_np(&large) != 0) return 2;
              const auto source = std::make_shared<Counting>(500, 20);
              Pipeline pipeline(source, source->fields(), options(7, Crew{kWorkers, -1, false, parts}, 5));
              testing::limit_address_space(size_t{40} << 20);
              for (int pass = 0; pass < 3; ++pass) {
                pipeline.start({.samples = 500, .batch_size = 7, .shuffle = true}, false);
                if (none ? threads() != 0 : threads() == 0 || threads() >= kWorkers) return 3;
                std::vector<int64_t> got = read_all(pipeline);
                std::sort(got.begin(), got.end());
                for (int64_t i = 0; i < 500; ++i) {
                  if (got.size() != 500 || got[static_cast<size_t>(i)] != i) return 4;
                }
              }
              testing::set_address_space(RLIM_INFINITY);
              pipeline.start({.samples = 500, .batch_size = 7}, false);
              if (threads() != kWorkers) return 5;
              return read_all(pipeline).size() == 500 ? 0 : 6;
            }) == 0);
    }
  }
}

}  // namespace gradring
