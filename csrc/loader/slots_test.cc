#include "loader/slots.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "runtime/status.h"

namespace gradring {

TEST_CASE("slots grow up to the limit, and free ones are taken lowest first") {
  for (bool shared : {false, true}) {
    for (size_t bytes : {size_t{1}, size_t{100}, size_t{70000}, size_t{3} << 20}) {
      SlotPool pool(bytes, 6, 130, shared);
      std::set<uint32_t> seen;
      const uint32_t count = bytes > 1000000 ? 3 : 130;
      for (uint32_t i = 0; i < count; ++i) {
        uint32_t slot = 0;
        REQUIRE(!pool.take(&slot));
        REQUIRE(pool.grow(&slot));
        seen.insert(slot);
        std::memset(pool.data(slot), static_cast<int>(i), bytes);
        REQUIRE(reinterpret_cast<uintptr_t>(pool.data(slot)) % 64 == 0);
      }
      CHECK(seen.size() == count);
      CHECK(pool.taken() == count);
      uint32_t slot = 0;
      if (count == 130) CHECK(!pool.grow(&slot));
      for (uint32_t i = 0; i < count; ++i) CHECK(pool.data(i)[bytes - 1] == static_cast<std::byte>(i));
      pool.give(count - 1);
      pool.give(1);
      REQUIRE(pool.take(&slot));
      CHECK(slot == 1);
      REQUIRE(pool.take(&slot));
      CHECK(slot == count - 1);
      CHECK(!pool.take(&slot));
      pool.give(0);
      pool.trim();
    }
  }
}

TEST_CASE("a slot given back by another thread wakes who waits, and its contents come along") {
  SlotPool pool(64, 2, 2, false);
  uint32_t slot = 0;
  REQUIRE(pool.grow(&slot));
  for (int round = 0; round < 500; ++round) {
    const uint32_t seen = pool.returns();
    auto* word = reinterpret_cast<int*>(pool.data(slot));
    std::thread holder([&] {
      *word = round;
      pool.give(slot);
    });
    uint32_t taken = 0;
    while (!pool.take(&taken)) REQUIRE((pool.wait_returned(seen, deadline_in(std::chrono::seconds(20)))));
    CHECK(*word == round);
    holder.join();
  }
  CHECK(!pool.wait_returned(pool.returns(), deadline_in(std::chrono::milliseconds(2))));
}

TEST_CASE("an absurd batch is refused before anything is allocated") {
  CHECK_THROWS_AS(SlotPool(size_t{1} << 60, 2, 2, false), Error);
  CHECK_THROWS_AS(SlotPool(size_t{1} << 45, 1000, 1000, true), Error);
}

TEST_CASE("a pool reserves addresses for the slots that it has, and slots stay where they are") {
  for (bool shared : {false, true}) {
    for (size_t bytes : {size_t{8}, size_t{8} << 10, size_t{70000}, size_t{1} << 20}) {
      for (uint32_t first : {1U, 3U, 18U, 64U, 300U}) {
        CAPTURE(bytes);
        CAPTURE(first);
        SlotPool pool(bytes, first, SlotPool::kMost, shared);
        const size_t in_first = std::max<size_t>(2 * first, bytes < 65536 ? 64 : 1) * pool.stride();
        CHECK(pool.map().reserved_bytes() <= in_first + 4096);
        std::vector<std::byte*> places;
        std::vector<uint32_t> numbers;
        const uint32_t count = bytes > 100000 ? 20 : 700;
        for (uint32_t i = 0; i < count; ++i) {
          uint32_t slot = 0;
          REQUIRE(pool.grow(&slot));
          REQUIRE(slot == i);
          places.push_back(pool.data(slot));
          std::memcpy(places.back() + bytes - sizeof i, &i, sizeof i);
          const size_t used = std::max<size_t>(i + 1, pool.map().first()) * pool.stride();
          CHECK(pool.map().reserved_bytes() <= 2 * used + 4096);
        }
        for (uint32_t i = 0; i < count; ++i) {
          uint32_t found = 0;
          REQUIRE(pool.data(i) == places[i]);
          std::memcpy(&found, places[i] + bytes - sizeof i, sizeof i);
          REQUIRE(found == i);
        }
        if (!shared) continue;
        // Another process's map finds the same bytes, and maps no more than the segments that it needs.
        SlotMap other(pool.stride(), pool.map().first(), pool.map().most(), pool.fd());
        CHECK(other.reserved_bytes() == 0);
        for (uint32_t i : {0U, count - 1, count / 2}) {
          uint32_t found = 0;
          std::memcpy(&found, other.reach(i) + bytes - sizeof i, sizeof i);
          CHECK(found == i);
          CHECK(other.data(i) == other.reach(i));
        }
      }
    }
  }
}

TEST_CASE("the last slot that there can be lies within the reservation") {
  for (uint32_t first : {1U, 5U, 64U, SlotPool::kMost}) {
    SlotMap map(64, first, SlotPool::kMost, -1);
    std::byte* const last = map.reach(SlotPool::kMost - 1);
    REQUIRE(last != nullptr);
    std::memset(last, 1, 64);
    if (first == SlotPool::kMost) CHECK(map.data(0) + (SlotPool::kMost - 1) * size_t{64} == last);
  }
  SlotMap few(4096, 2, 5, -1);
  std::memset(few.reach(4), 1, 4096);  // the only slot in its segment
  CHECK(few.reserved_bytes() == 4096);
}

TEST_CASE("a refused reservation leaves the slots that there are") {
  SlotMap map(size_t{1} << 36, 1, SlotPool::kMost, -1);  // 64 GiB each, 4 PiB together
  std::byte* const first = map.reach(0);
  REQUIRE(first != nullptr);
  CHECK(map.reach(1) != nullptr);
  CHECK(map.reach(SlotPool::kMost - 1) == nullptr);
  CHECK(map.reach(0) == first);
  std::memset(first, 1, 4096);
}

}  // namespace gradring
