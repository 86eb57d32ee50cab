#include "runtime/forks.h"

#include <doctest/doctest.h>

#include <memory>

#include "runtime/testing.h"

namespace gradring {

TEST_CASE("a child counts one more, its child two, and the parent none") {
  const uint64_t here = forks_so_far();
  CHECK(testing::exit_of_child([&] {
          if (forks_so_far() != here + 1) return 1;
          const int grandchild = testing::exit_of_child([&] { return forks_so_far() == here + 2 ? 0 : 1; });
          return grandchild == 0 && forks_so_far() == here + 1 ? 0 : 2;
        }) == 0);
  CHECK(forks_so_far() == here);
}

TEST_CASE("what threads share is destroyed by the process that made it, and by no child") {
  static int destroyed;
  struct Counted {
    ~Counted() { ++destroyed; }
  };
  destroyed = 0;
  auto held = std::make_unique<LeftInChildren<Counted>>();
  CHECK_FALSE(held->in_child());
  CHECK(testing::exit_of_child([&] {
          if (!held->in_child()) return 1;
          held.reset();
          return destroyed == 0 ? 0 : 2;
        }) == 0);
  held.reset();
  CHECK(destroyed == 1);
}

}  // namespace gradring
