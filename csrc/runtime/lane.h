// Lane: one thread's place in a running team, as a kernel sees it.
//
// Kernels are compiled once per instruction set, and there are many of them, so this header includes no part of the standard
// library that takes time to compile. A file that starts lanes includes team.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradring/export.h"

namespace gradring {

struct Lane;

// The part of a Team that its lanes use: their scratch memory, and the barrier.
class GRADRING_API LaneTeam {
 public:
  LaneTeam(const LaneTeam&) = delete;
  LaneTeam& operator=(const LaneTeam&) = delete;

  size_t lane_scratch_bytes() const noexcept { return lane_bytes_; }
  size_t shared_scratch_bytes() const noexcept { return shared_bytes_; }

 protected:
  explicit LaneTeam(int lanes) noexcept : size_(lanes) {}
  ~LaneTeam() = default;

  int size_;
  size_t lane_bytes_ = 0;
  size_t shared_bytes_ = 0;
  std::byte* scratch_ = nullptr;

 private:
  friend struct Lane;
  void barrier(const Lane& lane) noexcept;
};

// One thread's place in a running team. Kernels split their work by (index, count) and may call barrier(). Kernels of each
// instruction set call these functions, so the compiler must not make one function of them that all share.
struct Lane {
  LaneTeam* team = nullptr;
  int index = 0;
  int count = 1;
  int seat = index;  // whose scratch memory it uses. It differs from index in a part of a team, which has no barriers

  [[gnu::always_inline]] void barrier() const noexcept {
    if (count > 1) team->barrier(*this);
  }
  // This lane's own memory, lane_scratch_bytes() long.
  [[gnu::always_inline]] std::byte* scratch() const noexcept {
    return team->scratch_ + static_cast<size_t>(seat) * team->lane_bytes_;
  }
  // Memory that all lanes share.
  [[gnu::always_inline]] std::byte* shared_scratch() const noexcept {
    return team->scratch_ + static_cast<size_t>(team->size_) * team->lane_bytes_;
  }
};

struct Range {
  int64_t begin;
  int64_t end;
};

// The part of [0, total) that belongs to a lane, in multiples of grain.
inline Range split(const Lane& lane, int64_t total, int64_t grain = 1) noexcept {
  const int64_t blocks = (total + grain - 1) / grain;
  const int64_t begin = blocks * lane.index / lane.count * grain;
  const int64_t end = blocks * (lane.index + 1) / lane.count * grain;
  return {begin < total ? begin : total, end < total ? end : total};
}

}  // namespace gradring
