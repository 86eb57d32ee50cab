// Programs into which a test can plant a bug. 0 plants none: the program is then right in every schedule.
#pragma once

namespace gradring::software {

enum Plant {
  kNoPlant = 0,
  // Kernels
  kMissingBarrier,
  kMissingSecondBarrier,
  kStaleShared,
  kBarrierInHalfABlock,
  kBarriersInTwoBranches,
  kExitBeforeBarrier,
  kExitedLanesInMask,
  kLaneOutsideItsMask,
  kShuffleOutsideMask,
  kTwoMasks,
  kMissingWarpBarrier,
  kUnalignedVector,
  kVectorBeyondEnd,
  kVectorLoadBeyondEnd,
  kStoreBeyondEnd,
  kRaceBetweenBlocks,
  kPlainMinimum,
  kRelaxedFlag,
  kFlagNeverSet,
  kDynamicSharedNotAsked,
  kTooManyThreads,
  kTooMuchShared,
  kTooMuchStaticShared,
  kMissingGridWait,
  // Streams
  kSlotReusedTooEarly,
  kDeviceSlotOverwritten,
  kMissingArrivalWait,
  kBranchesShareAWord,
  kUnjoinedCapture,
  kAllocationInCapture,
  kSynchronizeInCapture,
  kResultReadTooEarly,
  kForgottenEvent,
  kLegacyOrderAssumed,
  // Memory
  kFreedWhileInUse,
  kUsedBeforeAllocation,
  kUsedAfterFree,
  kFreedTwice,
  kRegisteredTwice,
  kRegisteredSharedPage,
  kCopyAcrossRegistrations,
  kWrongDirection,
  kPinnedWrittenDuringCopy,
  kCallInHostFunction,
  kHostResultWithoutWait,
  kMemoryLeft,
};

int kernel_program(Plant plant);  // a row-wise sum, a neighbour exchange, a minimum, a grid-wide turn
int feed_program(Plant plant);    // a pinned ring, a copy stream, a captured step, results at the end
int memory_program(Plant plant);  // stream-ordered memory, registration, host functions

}  // namespace gradring::software
