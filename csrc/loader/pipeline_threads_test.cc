// Tests of the threads of a pipeline: how they start, and how they end on a close, a stop, a fork and a lack of memory.
#include <doctest/doctest.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <iterator>
#include <memory>
#include <thread>
#include <vector>

#include "loader/pipeline.h"
#include "loader/pipeline_testing.h"
#include "runtime/testing.h"

namespace gradring {

using namespace pipeline_testing;

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
