#include "loader/ring.h"

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace gradring {

namespace {

using std::chrono::milliseconds;

// A ring for threads, with its slots. Each slot holds a number in a plain variable, which only the ring protects from races.
template <class Index>
struct Numbers {
  explicit Numbers(uint32_t cells, uint64_t first = 0)
      : memory(Ring<Index>::bytes(cells) / 64), ring(memory.data(), cells, Scope::kThreads), slots(cells) {
    ring.format();
    ring.open(first);
  }
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> memory;
  Ring<Index> ring;
  std::vector<uint64_t> slots;
};

}  // namespace

TEST_CASE("tickets come out in order, through every wrap of an 8-bit turn") {
  for (uint32_t cells : {1u, 2u, 3u, 4u, 7u}) {
    for (uint64_t first : {uint64_t{0}, uint64_t{5}, uint64_t{1000003}}) {
      Numbers<uint8_t> numbers(cells, first);
      auto& ring = numbers.ring;
      for (uint64_t t = first; t < first + 3000; ++t) {
        REQUIRE(ring.claim() == t);
        REQUIRE(!ring.full(t));
        REQUIRE(ring.reserve(t) == RingWait::kReady);
        if (t % 5 == 3) {
          ring.discard(t);
          REQUIRE(ring.await(t) == RingWait::kDiscarded);
        } else {
          ring.commit(t);
          REQUIRE(ring.await(t) == RingWait::kReady);
        }
        REQUIRE(ring.reserve(t + cells, Clock::now()) == RingWait::kTimeout);
        ring.release(t);
      }
    }
  }
}

TEST_CASE(
    "a consumer that allows fewer tickets than there are cells has so many filled ahead, and may change its mind") {
  for (uint32_t cells : {1u, 3u, 7u}) {
    for (uint64_t first : {uint64_t{0}, uint64_t{1000003}}) {
      Numbers<uint8_t> numbers(cells);
      auto& ring = numbers.ring;
      ring.open(first, 0);
      uint64_t allowed = first;
      for (uint64_t t = first; t < first + 3000; ++t) {
        const uint64_t ahead = 1 + t / 7 % cells;
        for (; allowed < t + ahead; ++allowed) {
          REQUIRE(ring.claim() == allowed);
          REQUIRE(ring.reserve(allowed, Clock::now()) == RingWait::kTimeout);
          REQUIRE(!ring.full(allowed));
          ring.allow(allowed);
          REQUIRE(ring.reserve(allowed) == RingWait::kReady);
          REQUIRE(ring.await(allowed, Clock::now()) == RingWait::kTimeout);
          ring.commit(allowed);
        }
        REQUIRE(ring.await(t) == RingWait::kReady);
      }
    }
  }
}

TEST_CASE("a full ring makes producers wait, an empty one the consumer, both with deadlines") {
  Numbers<uint8_t> numbers(2);
  auto& ring = numbers.ring;
  CHECK(ring.await(0, deadline_in(milliseconds(5))) == RingWait::kTimeout);
  for (int i = 0; i < 2; ++i) {
    const uint64_t t = ring.claim();
    REQUIRE(ring.reserve(t) == RingWait::kReady);
    ring.commit(t);
  }
  CHECK(ring.reserve(ring.claim(), deadline_in(milliseconds(5))) == RingWait::kTimeout);
  std::thread consumer([&] {
    std::this_thread::sleep_for(milliseconds(5));
    ring.release(0);
  });
  CHECK(ring.reserve(2) == RingWait::kReady);
  consumer.join();
}

TEST_CASE("close ends all waits; what is full can still be taken") {
  Numbers<uint32_t> numbers(1);
  auto& ring = numbers.ring;
  REQUIRE(ring.reserve(ring.claim()) == RingWait::kReady);
  ring.commit(0);
  std::vector<std::thread> waiters;
  std::atomic<int> closed{0};
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&] { closed += ring.reserve(ring.claim()) == RingWait::kClosed; });
  }
  std::this_thread::sleep_for(milliseconds(10));
  ring.close();
  for (std::thread& waiter : waiters) waiter.join();
  CHECK(closed == 3);
  CHECK(ring.await(0) == RingWait::kReady);
  ring.release(0);
  CHECK(ring.reserve(1) == RingWait::kClosed);
  CHECK(ring.await(1) == RingWait::kClosed);
  ring.open(9);
  CHECK(ring.claim() == 9);
  CHECK(ring.reserve(9) == RingWait::kReady);
}

TEST_CASE("many producers on few cores: nothing lost, doubled or overwritten") {
  const auto stress = [](auto index, uint32_t cells, int producers, uint64_t total) {
    Numbers<decltype(index)> numbers(cells);
    auto& ring = numbers.ring;
    std::vector<std::thread> threads;
    for (int p = 0; p < producers; ++p) {
      threads.emplace_back([&] {
        for (;;) {
          const uint64_t t = ring.claim();
          if (t >= total || ring.reserve(t) != RingWait::kReady) return;
          numbers.slots[ring.slot(t)] = t * 3 + 1;
          if (t % 11 == 4) {
            ring.discard(t);
          } else {
            ring.commit(t);
          }
        }
      });
    }
    bool right = true;
    for (uint64_t t = 0; t < total; ++t) {
      const RingWait got = ring.await(t);
      right = right && got == (t % 11 == 4 ? RingWait::kDiscarded : RingWait::kReady);
      right = right && numbers.slots[ring.slot(t)] == t * 3 + 1;
      if (t % 97 == 0) std::this_thread::yield();
      right = right && numbers.slots[ring.slot(t)] == t * 3 + 1;
      ring.release(t);
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(right);
  };
  stress(uint8_t{}, 1, 3, 4000);
  stress(uint8_t{}, 3, 6, 20000);
  stress(uint16_t{}, 8, 8, 20000);
  stress(uint32_t{}, 4, 2, 20000);
}

TEST_CASE("a consumer that fills any free slot meets workers on the same counter") {
  for (uint32_t cells : {1u, 2u, 5u}) {
    constexpr uint64_t kTotal = 20000;
    Numbers<uint8_t> numbers(cells);
    auto& ring = numbers.ring;
    std::thread worker([&] {
      for (;;) {
        const uint64_t t = ring.claim();
        if (t >= kTotal || ring.reserve(t) != RingWait::kReady) return;
        numbers.slots[ring.slot(t)] = t * 3 + 1;
        ring.commit(t);
      }
    });
    bool right = true;
    for (uint64_t t = 0; t < kTotal; ++t) {
      while (!ring.full(t)) {
        uint64_t ticket;
        if (!ring.claim_if_free(kTotal, &ticket)) {
          right = right && ring.await(t) == RingWait::kReady;
          break;
        }
        numbers.slots[ring.slot(ticket)] = ticket * 3 + 1;
        ring.commit(ticket);
      }
      right = right && numbers.slots[ring.slot(t)] == t * 3 + 1;
      if (t % 97 == 0) std::this_thread::yield();
      ring.release(t);
    }
    worker.join();
    CHECK(right);
    uint64_t ticket;
    CHECK(!ring.claim_if_free(kTotal, &ticket));
    ring.close();
    CHECK(!ring.claim_if_free(kTotal * 9, &ticket));
  }
}

TEST_CASE("close at any moment ends every producer") {
  for (int round = 0; round < 200; ++round) {
    Numbers<uint8_t> numbers(3);
    auto& ring = numbers.ring;
    std::vector<std::thread> threads;
    for (int p = 0; p < 3; ++p) {
      threads.emplace_back([&] {
        for (;;) {
          const uint64_t t = ring.claim();
          if (ring.reserve(t) != RingWait::kReady) return;
          ring.commit(t);
        }
      });
    }
    uint64_t t = 0;
    for (; t < static_cast<uint64_t>(round % 40); ++t) {
      REQUIRE(ring.await(t) == RingWait::kReady);
      ring.release(t);
    }
    ring.close();
    for (std::thread& thread : threads) thread.join();
  }
}

TEST_CASE("who opens beside a close, and looks afterwards whether one was wanted, loses none") {
  // A pipeline does the same: closing also sets a flag, and the thread that opens the ring reads that flag afterwards.
  for (int round = 0; round < 300; ++round) {
    Numbers<uint8_t> numbers(3);
    auto& ring = numbers.ring;
    std::atomic<bool> wanted{false};
    std::thread closer([&] {
      for (int i = 0; i < round % 50; ++i) std::this_thread::yield();
      wanted.store(true, std::memory_order_seq_cst);
      ring.close();
    });
    uint64_t first = 0;
    while (!wanted.load(std::memory_order_seq_cst)) {
      ring.open(first);
      if (!wanted.load(std::memory_order_seq_cst)) {
        const uint64_t t = ring.claim();
        if (ring.reserve(t) == RingWait::kReady) ring.commit(t);
      }
      first += 1 + static_cast<uint64_t>(round % 3);
    }
    // At this point, the close may have come before an open (which cleared it), during one, or after one.
    ring.close();
    closer.join();
    CHECK(ring.closed());
    CHECK(ring.reserve(ring.claim() + ring.cells(), deadline_in(milliseconds(20000))) == RingWait::kClosed);
  }
}

}  // namespace gradring
