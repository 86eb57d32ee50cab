// Tests of arrays that leave the shared memory after a failure, where memory is short.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "comm/testing.h"
#include "runtime/testing.h"

using namespace gradring;
using namespace gradring::testing;

TEST_CASE("arrays for which there is no private memory are told, and move once there is" * doctest::skip(kSanitized)) {
  constexpr size_t kBytes = size_t{40} << 20;  // of which a copy takes two pieces
  for (const bool by_close : {false, true}) {
    auto groups = Group::of_threads(2, milliseconds(50));
    auto* const mine = static_cast<char*>(groups[0]->allocate(kBytes));
    std::memset(mine, 1, kBytes);
    uint64_t offset = 0;
    REQUIRE(groups[0]->segments()->own.offset_of(mine, kBytes, &offset));
    std::byte* const theirs = groups[1]->segments()->peers[0]->at(offset, kBytes);
    REQUIRE(theirs != nullptr);
    Call barrier;
    barrier.agreement.kind = Collective::kBarrier;
    groups[1]->set_activity(Activity::kComputing, milliseconds(1));
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    const rlimit none{1, before.rlim_max};  // no further mapping
    REQUIRE(setrlimit(RLIMIT_AS, &none) == 0);
    const Code code = groups[0]->run(barrier);
    REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(code == Code::kPeerStalled);
    const std::string shared = std::to_string(kBytes) + " bytes of this rank's arrays are still shared";
    CHECK(groups[0]->message(code, barrier).find(shared) != std::string::npos);
    theirs[5] = std::byte{7};
    CHECK(mine[5] == 7);  // it is true
    if (by_close) {
      groups[0]->close();
    } else {
      CHECK(groups[0]->run(barrier) == Code::kPeerStalled);
    }
    CHECK(groups[0]->message(code, barrier).find("shared") == std::string::npos);
    theirs[6] = theirs[kBytes - 1] = std::byte{8};
    CHECK(mine[5] == 7);
    CHECK(std::count(mine, mine + kBytes, 1) == static_cast<ptrdiff_t>(kBytes - 1));
    groups[0]->segments()->own.free(mine);
  }
}

TEST_CASE("with little memory, arrays become private in smaller pieces" * doctest::skip(kSanitized)) {
  constexpr size_t kBytes = size_t{48} << 20, kLimit = size_t{20} << 20;
  OwnSegment own(OwnSegment::create());
  auto* const array = static_cast<char*>(own.allocate(kBytes));
  std::memset(array, 3, kBytes);
  size_t pages = 0;
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  REQUIRE(file != nullptr);
  REQUIRE(std::fscanf(file, "%zu", &pages) == 1);
  std::fclose(file);
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
  const rlimit little{pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)) + kLimit, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_AS, &little) == 0);
  const bool done = own.detach();  // each piece replaces a mapping, so it takes address space only while it is copied
  REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
  CHECK(done);
  CHECK(own.left_shared() == 0);
  CHECK(std::count(array, array + kBytes, 3) == static_cast<ptrdiff_t>(kBytes));
}
