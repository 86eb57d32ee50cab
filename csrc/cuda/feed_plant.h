// Bugs that tests plant into the device feed, to show that they would find them. Without GRADRING_PLANTS, which only a test sets,
// there are none.
#pragma once

namespace gradring::cuda {

enum class FeedPlant {
  kNone,
  kRefillBeforeCopy,  // the feed returns the host's memory before it was copied
  kSlotReused,        // a copy overwrites a batch that is still read
  kNoArrivalWait,     // the consumer's stream does not wait for the copy
  kOneStreamOnly,     // a batch that a second stream uses is ordered behind the first alone
  kCaptureForgotten,  // a batch that is dropped during a capture is free at once
};

#ifdef GRADRING_PLANTS
inline FeedPlant the_feed_plant = FeedPlant::kNone;
inline bool planted(FeedPlant plant) noexcept { return plant == the_feed_plant; }
#else
constexpr bool planted(FeedPlant) noexcept { return false; }
#endif

}  // namespace gradring::cuda
