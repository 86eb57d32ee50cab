#include "runtime/pinning.h"

#include <atomic>
#include <cstdint>
#include <iterator>

namespace gradring {

namespace {

constexpr size_t kPage = 4096;
std::atomic<Pinner*> offered{nullptr};

}  // namespace

void offer_pinner(Pinner* pinner) noexcept { offered.store(pinner, std::memory_order_release); }
Pinner* pinner() noexcept { return offered.load(std::memory_order_acquire); }

PinnedRanges::~PinnedRanges() {
  for (const auto& [begin, bytes] : ranges_) pinner_.unpin(begin);
}

Status PinnedRanges::add(void* address, size_t bytes) noexcept {
  auto* const begin = static_cast<std::byte*>(address);
  if (bytes == 0 || bytes % kPage != 0 || reinterpret_cast<uintptr_t>(address) % kPage != 0) {
    return {Code::kInvalidArgument, "[pin] %zu bytes at %p: must begin and end on pages of %zu bytes", bytes, address,
            kPage};
  }
  const auto after = ranges_.lower_bound(begin);
  const bool before_overlaps = after != ranges_.begin() && std::prev(after)->first + std::prev(after)->second > begin;
  if (before_overlaps || (after != ranges_.end() && after->first < begin + bytes)) {
    return {Code::kInvalidArgument, "[pin] %zu bytes at %p: a part of them is registered already", bytes, address};
  }
  try {
    const auto made = ranges_.emplace_hint(after, begin, bytes);
    const Status status = pinner_.pin(address, bytes);
    if (!status.ok()) ranges_.erase(made);
    return status;
  } catch (...) {
    return {Code::kOutOfMemory, "[pin] no memory for one more registration"};
  }
}

bool PinnedRanges::hold(const void* address, size_t bytes) const noexcept {
  auto* const begin = static_cast<std::byte*>(const_cast<void*>(address));
  const auto after = ranges_.upper_bound(begin);
  if (after == ranges_.begin()) return false;
  const auto& [first, size] = *std::prev(after);
  return begin + bytes <= first + size;
}

}  // namespace gradring
