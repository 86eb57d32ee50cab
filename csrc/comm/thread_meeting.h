// Meetings of the threads of one process, for data-parallel training.
//
// | variable        | writer                | readers         | order             | why                                        |
// |-----------------|-----------------------|-----------------|-------------------|--------------------------------------------|
// | Seat::progress  | that rank             | other ranks     | Signal: release / | what the rank has brought, its plane and   |
// |                 |                       |                 | acquire           | its parameters are visible with it         |
// | decision_       | settle, give_up (CAS) | settle          | acq_rel, acquire  | one outcome for each meeting               |
// | Seat::begun     | that rank             | torn            | release, acquire  | set before the rank's first write          |
// | Seat::done      | that rank             | torn            | release, acquire  | set after the rank's last write            |
//
// A seat's progress is twice the number of meetings that its rank has come to, plus one if the rank has left since. A seat has
// two places for what its rank brings, which alternate: a rank writes its place for meeting k + 2 after all have come to
// meeting k + 1, and a rank comes to that one after its lanes have read what was brought to meeting k.
//
// The decision is one word, the number of the meeting and its outcome. It only grows: a rank that settles meeting k replaces an
// older number by compare-and-swap, or else reads what another rank has settled. csrc/comm/models/commit.pml checks every
// interleaving of it, with ranks that leave at any step. Gray's two-phase commit ("Notes on Data Base Operating Systems", 1978)
// is its ancestor: the meeting is the vote, and the word in shared memory replaces the coordinator.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "gradring/export.h"
#include "runtime/meeting.h"
#include "runtime/wait.h"

namespace gradring {

class GRADRING_API ThreadMeetings {
 public:
  // Throws Error unless there are 1 to 256 ranks.
  explicit ThreadMeetings(int ranks);
  ~ThreadMeetings();
  ThreadMeetings(const ThreadMeetings&) = delete;
  ThreadMeetings& operator=(const ThreadMeetings&) = delete;

  int size() const noexcept { return size_; }
  // The meeting as one rank sees it. It lives as long as this object.
  Meeting& of(int rank) noexcept;

  // Call `enter` before a run of steps, while no rank is in one: all ranks take part again. After the run each rank calls
  // `leave`, so that the other ranks stop waiting for it.
  void enter() noexcept;
  void leave(int rank) noexcept;

  // Whether some ranks have applied an update and others have not: the parameters then belong to no step. Call it
  // between runs.
  bool torn() const noexcept;
  // Call this after the parameters were replaced as a whole.
  void mend() noexcept;

 private:
  struct Seat;

  bool await(int rank, uint32_t number) noexcept;
  Decision settle(uint32_t number, Decision wish) noexcept;

  int size_;
  std::unique_ptr<Seat[]> seats_;
  alignas(64) std::atomic<uint64_t> decision_{0};
};

}  // namespace gradring
