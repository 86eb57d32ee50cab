#include "ops/shared_update/shared_parameters.h"

#include <sched.h>

#include "runtime/status.h"

namespace gradring {

SharedParameters::SharedParameters(std::byte* data, int64_t bytes, int workers, uint32_t look_every,
                                   std::shared_ptr<const void> owner)
    : data_(data), bytes_(0), look_every_(look_every), counts_(static_cast<size_t>(workers)) {
  move_to(data, bytes, std::move(owner));
}

void SharedParameters::move_to(std::byte* data, int64_t bytes, std::shared_ptr<const void> owner) {
  // There are locks enough for elements of four bytes. If elements are larger, some locks are never used.
  if (bytes != bytes_ || locks_ == nullptr)
    locks_ = std::make_unique<Lock[]>(static_cast<size_t>(bytes / 4 / kStripe + 1));
  data_ = data;
  owner_ = std::move(owner);
  bytes_ = bytes;
}

void SharedParameters::add_counts(int worker, uint64_t lost, uint64_t counted, uint64_t retried) noexcept {
  Counts& mine = counts_[static_cast<size_t>(worker)];
  if (lost > 0) mine.lost.fetch_add(lost, std::memory_order_relaxed);
  if (counted > 0) mine.counted.fetch_add(counted, std::memory_order_relaxed);
  if (retried > 0) mine.retried.fetch_add(retried, std::memory_order_relaxed);
}

SharedParameters::Totals SharedParameters::totals() const noexcept {
  Totals sum;
  for (const Counts& of : counts_) {
    sum.lost += of.lost.load(std::memory_order_relaxed);
    sum.counted += of.counted.load(std::memory_order_relaxed);
    sum.retried += of.retried.load(std::memory_order_relaxed);
  }
  return sum;
}

void SharedParameters::force_collisions(std::chrono::nanoseconds patience, uint32_t look_every) noexcept {
  patience_ = patience;
  look_every_ = look_every;
  loads_.store(0, std::memory_order_release);
}

void SharedParameters::await_others() noexcept {
  const auto all = static_cast<uint64_t>(workers());
  const uint64_t mine = loads_.fetch_add(1, std::memory_order_acq_rel);
  const uint64_t target = (mine / all + 1) * all;
  const Deadline deadline = deadline_in(patience_);
  while (loads_.load(std::memory_order_acquire) < target && Clock::now() < deadline) sched_yield();
}

}  // namespace gradring
