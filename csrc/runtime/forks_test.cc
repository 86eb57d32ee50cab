#include "runtime/forks.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace gradring {

TEST_CASE("a child counts one more, its child two, and the parent none") {
  const uint64_t here = forks_so_far();
  const pid_t child = fork();
  if (child == 0) {
    if (forks_so_far() != here + 1) _exit(1);
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(forks_so_far() == here + 2 ? 0 : 1);
    int status = 1;
    waitpid(grandchild, &status, 0);
    _exit(status == 0 && forks_so_far() == here + 1 ? 0 : 1);
  }
  REQUIRE(child > 0);
  int status = 1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(forks_so_far() == here);
}

}  // namespace gradring
