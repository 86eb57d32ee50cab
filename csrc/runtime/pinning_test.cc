#include "runtime/pinning.h"

#include <doctest/doctest.h>

#include <vector>

#include "runtime/arena.h"

namespace gradring {

namespace {

// Registers nothing, refuses what a test says, and remembers the calls.
class Recorder final : public Pinner {
 public:
  Status pin(void* address, size_t bytes) noexcept override {
    if (refuses) return {Code::kUnavailable, "no more memory may be locked"};
    pinned.push_back({address, bytes});
    return {};
  }
  void unpin(void* address) noexcept override { unpinned.push_back(address); }

  bool refuses = false;
  std::vector<std::pair<void*, size_t>> pinned;
  std::vector<void*> unpinned;
};

constexpr size_t kPage = 4096;

}  // namespace

TEST_CASE("ranges are registered once each, and no longer when their owner ends") {
  Recorder recorder;
  const AlignedArena arena(8 * kPage);
  std::byte* const at = arena.data();
  {
    PinnedRanges ranges(recorder);
    CHECK(ranges.add(at + 2 * kPage, 2 * kPage).ok());
    CHECK(ranges.add(at, kPage).ok());
    CHECK(ranges.add(at + 4 * kPage, kPage).ok());
    CHECK(ranges.count() == 3);
    // No page is registered twice, however the ranges overlap.
    for (const auto& [begin, pages] :
         std::vector<std::pair<size_t, size_t>>{{2, 2}, {2, 1}, {3, 1}, {1, 2}, {0, 8}, {3, 3}}) {
      CAPTURE(begin);
      CHECK(ranges.add(at + begin * kPage, pages * kPage).code() == Code::kInvalidArgument);
    }
    CHECK(ranges.add(at + 1 * kPage, kPage).ok());
    CHECK(recorder.pinned.size() == 4);
    CHECK(recorder.unpinned.empty());
  }
  CHECK(recorder.unpinned.size() == 4);
}

TEST_CASE("a range that is not of whole pages is refused") {
  Recorder recorder;
  const AlignedArena arena(4 * kPage);
  PinnedRanges ranges(recorder);
  CHECK(ranges.add(arena.data() + 64, kPage).code() == Code::kInvalidArgument);
  CHECK(ranges.add(arena.data(), kPage + 64).code() == Code::kInvalidArgument);
  CHECK(ranges.add(arena.data(), 0).code() == Code::kInvalidArgument);
  CHECK(recorder.pinned.empty());
}

TEST_CASE("bytes are held by one registration or by none, never by two that are neighbours") {
  Recorder recorder;
  const AlignedArena arena(4 * kPage);
  std::byte* const at = arena.data();
  PinnedRanges ranges(recorder);
  REQUIRE(ranges.add(at, kPage).ok());
  REQUIRE(ranges.add(at + kPage, kPage).ok());
  CHECK(ranges.hold(at, kPage));
  CHECK(ranges.hold(at + 100, 200));
  CHECK(ranges.hold(at + kPage, kPage));
  CHECK(!ranges.hold(at + 100, kPage));
  CHECK(!ranges.hold(at, 2 * kPage));
  CHECK(!ranges.hold(at + 2 * kPage, 1));
  CHECK(!ranges.hold(at - 1, 1));
}

TEST_CASE("a refusal says why and leaves nothing registered") {
  Recorder recorder;
  recorder.refuses = true;
  const AlignedArena arena(kPage);
  PinnedRanges ranges(recorder);
  const Status status = ranges.add(arena.data(), kPage);
  CHECK(status.code() == Code::kUnavailable);
  CHECK(std::string(status.message()) == "no more memory may be locked");
  CHECK(ranges.count() == 0);
  CHECK(!ranges.hold(arena.data(), 1));
  recorder.refuses = false;
  CHECK(ranges.add(arena.data(), kPage).ok());
}

TEST_CASE("a module's offer is found, and can be taken back") {
  Recorder recorder;
  Pinner* const before = pinner();
  offer_pinner(&recorder);
  CHECK(pinner() == &recorder);
  offer_pinner(before);
  CHECK(pinner() == before);
}

}  // namespace gradring
