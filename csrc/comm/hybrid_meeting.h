// The meetings of replicas that are threads of several processes: p processes with r replicas each are one group of p r ranks.
//
// A meeting has three parts. The replicas of a process come together; the first of them, the leader, meets the leaders of the
// other processes in a round of their group (comm/rank_meeting.h); then it tells its own replicas how that round has ended. So
// the processes exchange as many cells as they do without replicas. What the replicas bring lies in places of a region that all
// processes map, and the round makes it visible to all.
//
// | variable           | writer        | readers          | order             | why                                          |
// |--------------------|---------------|------------------|-------------------|----------------------------------------------|
// | Seat::progress     | that replica  | the leader       | Signal: release / | what the replica has brought and written is  |
// |                    |               |                  | acquire           | visible with it                              |
// | told_              | the leader    | its replicas     | Signal: release / | how the round ended, what all have brought,  |
// |                    |               |                  | acquire           | and what they have written                   |
// | a place            | that replica  | all ranks        | plain             | the round of the leaders comes in between    |
//
// The signals have the number of meetings, and a bit that says that the writer has left since; told_ also says whether the last of
// these meetings took place. A replica has two places. The leader
// says in its cell which of them its process has used, and changes to the other one after the round: so a replica writes to a
// place again after all processes have come to the next round, and a process comes to that one after its replicas have read.
//
// The decision is the word of the leaders' meeting, by compare-and-swap: each replica of each process settles it or reads it. If
// the wait of a leader fails, because a process has died or stalled, the leader sets the word to abort for all replicas of its
// process, or finds that a rank has committed. A process has one counter of the updates that it has begun and one of those that it
// has done. Each replica sets the first one before it writes a parameter, all to the same number. The leader sets the second one
// after all replicas of its process have done their parts. With THREADS, csrc/comm/models/commit.pml checks every interleaving.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/rank_meeting.h"
#include "gradring/export.h"
#include "runtime/meeting.h"
#include "runtime/wait.h"

namespace gradring {

class HybridMeetings {
 public:
  // All processes of the group call it, with the same number of replicas. Throws Error unless there are 1 to 256 ranks in all;
  // null if `code` is not kOk.
  GRADRING_API static std::shared_ptr<HybridMeetings> make(std::shared_ptr<RankMeeting> processes, int replicas,
                                                           Waiter* waiter, Code* code);
  ~HybridMeetings();
  HybridMeetings(const HybridMeetings&) = delete;
  HybridMeetings& operator=(const HybridMeetings&) = delete;

  int replicas() const noexcept { return replicas_; }  // of this process
  RankMeeting& processes() noexcept { return *processes_; }
  // The meeting as a replica of this process sees it. It lives as long as this object. The thread that uses the group is that of
  // replica 0, the leader.
  GRADRING_API Meeting& of(int replica) noexcept;

  // As in ThreadMeetings: `enter` before a run of steps, and each replica calls `leave` after it.
  GRADRING_API void enter() noexcept;
  GRADRING_API void leave(int replica) noexcept;

 private:
  struct Seat;

  HybridMeetings(std::shared_ptr<RankMeeting> processes, std::shared_ptr<SharedRegion> region, int replicas);
  // A place, of two, for what a rank brings.
  Brought& place(unsigned half, int rank) const noexcept;
  bool lead(uint32_t number, bool ends) noexcept;

  std::shared_ptr<RankMeeting> processes_;
  std::shared_ptr<SharedRegion> region_;
  int replicas_;
  std::unique_ptr<Seat[]> seats_;
  // The leader writes the following before it publishes told_.
  unsigned half_ = 0;             // the place that the next meeting uses
  std::vector<unsigned> halves_;  // the place that each process has used in the last meeting
  uint32_t meeting_ = 0;          // the number of the last meeting, which decides under this number
  uint64_t update_ = 0;           // the number of the update that a commit of that meeting begins
  Signal told_;
};

}  // namespace gradring
