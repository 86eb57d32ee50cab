// Tests that each planted bug is found, and that programs without one are clean in every schedule.
#include "cuda/software/tests/plants.h"

#include <doctest/doctest.h>

#include <string>

#include "cuda/software/sanitizers.h"
#include "cuda/software/tests/apart.h"

using namespace gradring::software;

namespace {

using Program = int (*)(Plant);

// Which builds find a bug: kAnywhere: every build; kRace: a build with ThreadSanitizer, in every schedule.
enum class By { kAnywhere, kRace };
struct Planted {
  const char* name;
  Plant plant;
  Program program;
  By by;
  const char* says;  // a part of the message, if the software device reports the bug
};

const Planted kPlanted[] = {
    {"a missing barrier", kMissingBarrier, kernel_program, By::kRace, nullptr},
    {"a missing second barrier", kMissingSecondBarrier, kernel_program, By::kRace, nullptr},
    {"stale shared memory", kStaleShared, kernel_program, By::kAnywhere, nullptr},
    {"a barrier in half a block", kBarrierInHalfABlock, kernel_program, By::kAnywhere, "divergent barrier"},
    {"barriers in two branches", kBarriersInTwoBranches, kernel_program, By::kAnywhere, "divergent barrier"},
    {"an exit before a barrier", kExitBeforeBarrier, kernel_program, By::kAnywhere, "have exited"},
    {"exited lanes in a mask", kExitedLanesInMask, kernel_program, By::kAnywhere, "has exited"},
    {"a lane outside its mask", kLaneOutsideItsMask, kernel_program, By::kAnywhere, "not in its own mask"},
    {"a shuffle from outside the mask", kShuffleOutsideMask, kernel_program, By::kAnywhere, "mask"},
    {"two masks at once", kTwoMasks, kernel_program, By::kAnywhere, "has mask"},
    {"a missing warp barrier", kMissingWarpBarrier, kernel_program, By::kRace, nullptr},
    {"an unaligned vector", kUnalignedVector, kernel_program, By::kAnywhere, "not aligned"},
    {"a vector stored beyond the end", kVectorBeyondEnd, kernel_program, By::kAnywhere, "into an allocation of"},
    {"a vector loaded beyond the end", kVectorLoadBeyondEnd, kernel_program, By::kAnywhere, "into an allocation of"},
    {"a store beyond the end", kStoreBeyondEnd, kernel_program, By::kAnywhere, nullptr},
    {"a race between blocks", kRaceBetweenBlocks, kernel_program, By::kRace, nullptr},
    {"a minimum without an atomic", kPlainMinimum, kernel_program, By::kRace, nullptr},
    {"a relaxed flag", kRelaxedFlag, kernel_program, By::kRace, nullptr},
    {"a flag that no thread sets", kFlagNeverSet, kernel_program, By::kAnywhere, "waits for ever"},
    {"no wait for the other block", kMissingGridWait, kernel_program, By::kRace, nullptr},
    {"dynamic shared memory without asking", kDynamicSharedNotAsked, kernel_program, By::kAnywhere, "asks for none"},
    {"too many threads", kTooManyThreads, kernel_program, By::kAnywhere, "cudaErrorInvalidConfiguration"},
    {"too much dynamic shared memory", kTooMuchShared, kernel_program, By::kAnywhere, "cudaErrorInvalidValue"},
    {"too much static shared memory", kTooMuchStaticShared, kernel_program, By::kAnywhere, "static shared memory"},
    {"a slot reused before its copy's end", kSlotReusedTooEarly, feed_program, By::kRace, nullptr},
    {"a device slot overwritten", kDeviceSlotOverwritten, feed_program, By::kRace, nullptr},
    {"no wait for the copy", kMissingArrivalWait, feed_program, By::kRace, nullptr},
    {"two branches that write one word", kBranchesShareAWord, feed_program, By::kRace, nullptr},
    {"an unjoined capture", kUnjoinedCapture, feed_program, By::kAnywhere, "cudaErrorStreamCaptureUnjoined"},
    {"an allocation during capture", kAllocationInCapture, feed_program, By::kAnywhere, "CaptureInvalidated"},
    {"a synchronization during capture", kSynchronizeInCapture, feed_program, By::kAnywhere, "CaptureInvalidated"},
    {"results read too early", kResultReadTooEarly, feed_program, By::kRace, nullptr},
    {"a forgotten event", kForgottenEvent, feed_program, By::kAnywhere, "leaked: 1 events"},
    {"the legacy stream taken for everyone's", kLegacyOrderAssumed, feed_program, By::kRace, nullptr},
    {"memory freed while in use", kFreedWhileInUse, memory_program, By::kRace, nullptr},
    {"memory used before its allocation", kUsedBeforeAllocation, memory_program, By::kRace, nullptr},
    {"memory used after its free", kUsedAfterFree, memory_program, By::kAnywhere, nullptr},
    {"memory freed twice", kFreedTwice, memory_program, By::kAnywhere, "cudaErrorInvalidValue"},
    {"a range registered twice", kRegisteredTwice, memory_program, By::kAnywhere, "AlreadyRegistered"},
    {"registrations that share a page", kRegisteredSharedPage, memory_program, By::kAnywhere, "AlreadyRegistered"},
    {"a copy across registrations", kCopyAcrossRegistrations, memory_program, By::kAnywhere, "cudaErrorInvalidValue"},
    {"a copy the wrong way", kWrongDirection, memory_program, By::kAnywhere, "cudaErrorInvalidMemcpyDirection"},
    {"pinned memory written during its copy", kPinnedWrittenDuringCopy, memory_program, By::kRace, nullptr},
    {"a call in a host function", kCallInHostFunction, memory_program, By::kAnywhere, nullptr},
    {"a host function's result without a wait", kHostResultWithoutWait, memory_program, By::kRace, nullptr},
    {"memory left at the end", kMemoryLeft, memory_program, By::kAnywhere, "leaked: 1 device allocations"},
};

Outcome run(const Planted& planted, Options options) {
  if (planted.plant == kFlagNeverSet) options.patience_seconds = 0.5;
  return run_apart(options, [&] { return planted.program(planted.plant); });
}

}  // namespace

TEST_CASE("programs without a bug are clean in every schedule") {
  for (const Program program : {kernel_program, feed_program, memory_program}) {
    for (const Options& options : every_schedule(10)) {
      const Outcome outcome = run({"", kNoPlant, program, By::kAnywhere, nullptr}, options);
      INFO(name(options), ": ", outcome.said);
      CHECK(outcome.status == 0);
    }
  }
}

TEST_CASE("planted bugs are found") {
  for (const Planted& planted : kPlanted) {
    if (planted.by == By::kRace && !kThreadSanitizer) continue;
    // The eager schedule hides most bugs, so a bug that it shows is found in every run.
    for (const Options& options : every_schedule(planted.by == By::kRace ? 2 : 0)) {
      const Outcome outcome = run(planted, options);
      INFO(std::string(planted.name), ", ", name(options), ": ", outcome.said);
      CHECK(outcome.status != 0);
      if (planted.says && outcome.status != kBadAddressReported)
        CHECK(outcome.said.find(planted.says) != std::string::npos);
      const bool race = outcome.said.find("data race") != std::string::npos;
      const bool fault = outcome.said.find("illegal address") != std::string::npos;  // it may come before the race
      if (planted.by == By::kRace) CHECK((race || fault));
    }
  }
}

TEST_CASE("some schedule shows the wrong numbers of stream bugs without a race detector") {
  if (kThreadSanitizer) return;
  for (const Planted& planted : kPlanted) {
    switch (planted.plant) {
      case kSlotReusedTooEarly:
      case kDeviceSlotOverwritten:
      case kMissingArrivalWait:
      case kBranchesShareAWord:
      case kResultReadTooEarly:
      case kPinnedWrittenDuringCopy:
      case kHostResultWithoutWait:
      case kFreedWhileInUse:
      case kMissingGridWait: break;
      default: continue;
    }
    int found = 0;
    for (const Options& options : every_schedule(10)) found += run(planted, options).status != 0;
    INFO(std::string(planted.name));
    CHECK(found > 0);
  }
}
