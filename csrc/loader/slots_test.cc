#include "loader/slots.h"

#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <thread>

#include "runtime/status.h"

namespace gradring {

TEST_CASE("slots grow up to the limit, and free ones are taken lowest first") {
  for (bool shared : {false, true}) {
    for (size_t bytes : {size_t{1}, size_t{100}, size_t{70000}, size_t{3} << 20}) {
      SlotPool pool(bytes, 130, shared);
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
  SlotPool pool(64, 2, false);
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
  CHECK_THROWS_AS(SlotPool(size_t{1} << 60, 2, false), Error);
  CHECK_THROWS_AS(SlotPool(size_t{1} << 45, 1000, true), Error);
}

}  // namespace gradring
