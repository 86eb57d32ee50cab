// SharedParameters: the one set of parameters that the workers of an asynchronous training read and update without waiting for
// each other. Each worker computes on a snapshot of its own, and pushes its update of an element in one of three ways:
//
//   locked    the worker holds the lock of the element's stripe from its load to its store
//   atomic    a compare-and-swap stores the new value, or else loads again and computes again: no update is lost
//   hogwild   a load and a store: what another worker has stored between the two is lost
//
// Niu, Recht, Re, Wright, "Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent", NeurIPS 2011.
//
// | variable   | writer                | readers  | order            | why                                                  |
// |------------|-----------------------|----------|------------------|------------------------------------------------------|
// | place      | every worker's pushes | all      | relaxed          | an element is a value of its own: a snapshot may mix |
// |            | (store, CAS,          | workers  |                  | elements of several updates. Joining the threads     |
// |            | exchange)             |          |                  | orders the last pushes before plain reads            |
// | version_   | Workers, after a push | Workers  | fetch_add, load: | how many pushes there were: a number that orders     |
// |            |                       |          | relaxed          | nothing                                              |
// | Counts::   | that worker's lanes   | counts   | fetch_add, load: | sums for people, read when the workers have ended    |
// | lost,      |                       |          | relaxed          |                                                      |
// | counted,   |                       |          |                  |                                                      |
// | retried    |                       |          |                  |                                                      |
// | loads_     | every worker          | same     | acq_rel, acquire | only where a test forces collisions: all have loaded |
//
// Elements of an optimizer's state are plain: only the holder of the stripe's lock touches them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gradring/export.h"
#include "ops/resource.h"
#include "runtime/lock.h"

namespace gradring {

// The elements that share one lock: 64 KiB of float32. Updates under a lock are cut at multiples of it.
inline constexpr int64_t kStripe = int64_t{1} << 14;

class SharedParameters {
 public:
  struct Totals {
    uint64_t lost = 0;     // elements whose store has overwritten an update that the worker had not seen
    uint64_t counted = 0;  // elements whose store was looked at for that
    uint64_t retried = 0;  // elements that another worker had changed before a compare-and-swap
  };

  // `workers` share `bytes` of parameters. Of its pushes by load and store each worker looks at one in `look_every`: to see what
  // a store overwrites costs as much as a compare-and-swap. `owner` keeps the memory alive; null if the caller does.
  SharedParameters(std::byte* data, int64_t bytes, int workers, uint32_t look_every = 16,
                   std::shared_ptr<const void> owner = nullptr);
  SharedParameters(const SharedParameters&) = delete;
  SharedParameters& operator=(const SharedParameters&) = delete;

  std::byte* data() const noexcept { return data_; }
  int64_t bytes() const noexcept { return bytes_; }
  int workers() const noexcept { return static_cast<int>(counts_.size()); }

  // Other memory for the parameters. No worker runs.
  void move_to(std::byte* data, int64_t bytes, std::shared_ptr<const void> owner = nullptr);

  Lock& lock_of(int64_t element) noexcept { return locks_[static_cast<size_t>(element / kStripe)]; }

  uint64_t version() const noexcept { return version_.load(std::memory_order_relaxed); }
  // Counts a push; returns how many there were before.
  uint64_t pushed() noexcept { return version_.fetch_add(1, std::memory_order_relaxed); }

  void add_counts(int worker, uint64_t lost, uint64_t counted, uint64_t retried) noexcept;
  GRADRING_API Totals totals() const noexcept;
  uint32_t look_every() const noexcept { return look_every_; }

  // For tests: from now on each worker waits between its loads and its stores until all have loaded, or for `patience`. Zero:
  // no more. No worker runs.
  GRADRING_API void force_collisions(std::chrono::nanoseconds patience, uint32_t look_every) noexcept;
  void loaded() noexcept {
    if (patience_.count() > 0) await_others();
  }

 private:
  struct alignas(64) Counts {
    std::atomic<uint64_t> lost{0};
    std::atomic<uint64_t> counted{0};
    std::atomic<uint64_t> retried{0};
  };

  void await_others() noexcept;

  std::byte* data_;
  std::shared_ptr<const void> owner_;
  int64_t bytes_;
  uint32_t look_every_;
  std::unique_ptr<Lock[]> locks_;
  std::vector<Counts> counts_;
  alignas(64) std::atomic<uint64_t> version_{0};
  std::chrono::nanoseconds patience_{0};
  std::atomic<uint64_t> loads_{0};
};

// The parameters as one worker sees them: an entry of its programs' table of resources.
class SharedView final : public Resource {
 public:
  static constexpr const char* kKind = "shared parameters";
  SharedView(std::shared_ptr<SharedParameters> parameters, int worker)
      : parameters_(std::move(parameters)), worker_(worker) {}

  const char* kind() const noexcept override { return kKind; }
  SharedParameters& parameters() const noexcept { return *parameters_; }
  int worker() const noexcept { return worker_; }

  // Whether this push should see what its stores overwrite. The worker calls `next_push` before each step.
  void next_push() noexcept { ++pushes_; }
  bool looks() const noexcept { return pushes_ % parameters_->look_every() == 0; }

 private:
  std::shared_ptr<SharedParameters> parameters_;
  int worker_;
  uint32_t pushes_ = 0;
};

}  // namespace gradring
