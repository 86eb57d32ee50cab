// Team: a fixed set of threads that run one function together (fork-join), with a barrier inside.
//
// | variable      | writer            | readers       | order                     | why                                  |
// |---------------|-------------------|---------------|---------------------------|--------------------------------------|
// | Seat::work    | run (lane 0)      | that lane     | Signal: release / acquire | hands over body_, context_, lanes_,  |
// |               |                   |               |                           | sequence_                            |
// | Seat::taken   | that lane, lane 0 | the same      | CAS relaxed               | one of them alone runs the lane's    |
// |               |                   |               |                           | part; work and arrived carry data    |
// | Seat::arrived | that lane         | other lanes   | Signal: release / acquire | what the lane wrote before it arrived|
//
// The barrier is all-to-all: each lane publishes how many barriers it has reached, and waits until all others have reached as
// many. No word has two writers, two lanes exchange one cache line each way, and a late lane wakes all sleepers with one
// system call. From kFlatLanes lanes on, lane 0 collects the others' numbers and then releases them, because n x n exchanges
// would cost more. A lane may be one barrier ahead of another but never two, so a lane waits until a number was "reached", and
// not until it has "changed".
//
// body_, context_, lanes_ and sequence_ are plain variables: lane 0 writes them before it publishes the workers' signals, and
// does not write them again before every lane that took its part has arrived. A worker that wakes too late to take its part
// reads none of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "gradring/export.h"
#include "runtime/lane.h"
#include "runtime/wait.h"

namespace gradring {

class GRADRING_API Team final : public LaneTeam {
 public:
  // `lanes` is from 1 to 256. The constructor starts no thread: the first run with more than one lane starts them all.
  explicit Team(int lanes);
  ~Team();

  int lanes() const noexcept { return size_; }

  // Grows the scratch memory, which is 64-byte aligned. Call it between runs only. Throws Error(kOutOfMemory).
  void reserve(size_t bytes_per_lane, size_t shared_bytes);

  // Runs body(lane) on the first `lanes` lanes, the caller being lane 0; returns when all have finished. There are
  // fewer lanes where the system refuses threads, so scratch that suffices for n lanes must suffice for fewer.
  // One run at a time, from one thread at a time, not from inside a run; body must not throw.
  template <class Body>
  void run(int lanes, Body&& body) noexcept {
    using Plain = std::remove_reference_t<Body>;
    run_erased(
        lanes, [](void* context, const Lane& lane) noexcept { (*static_cast<Plain*>(context))(lane); },
        const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

  // Does the same for a body without barriers. When the caller has finished its own part, it also runs the parts whose workers
  // have not begun, so that a worker that sleeps or waits for a core does not delay the result.
  template <class Body>
  void run_each(int lanes, Body&& body) noexcept {
    using Plain = std::remove_reference_t<Body>;
    run_each_erased(
        lanes, [](void* context, const Lane& lane) noexcept { (*static_cast<Plain*>(context))(lane); },
        const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

  // Whether a worker sleeps that a run of `lanes` lanes needs, so that waking it takes a system call.
  bool asleep(int lanes) const noexcept;

 private:
  friend class LaneTeam;
  friend struct TeamTestAccess;
  struct Seat;
  using Entry = void (*)(void* context, const Lane& lane) noexcept;

  void run_erased(int lanes, Entry body, void* context) noexcept;
  void run_each_erased(int lanes, Entry body, void* context) noexcept;
  int hand_out(int lanes, Entry body, void* context) noexcept;
  bool start_threads() noexcept;
  void stop_threads() noexcept;
  void work(Seat& seat) noexcept;
  void meet(const Lane& lane) noexcept;
  void refresh_arrivals() noexcept;
  void place(int core) noexcept;
  void keep_apart() noexcept;

  uint64_t born_in_fork_;
  bool started_ = false;
  std::unique_ptr<Seat[]> seats_;

  Entry body_ = nullptr;
  void* context_ = nullptr;
  int lanes_ = 0;           // how many lanes this run has; -1 tells the workers to end
  uint64_t sequence_ = 0;   // barriers and joins passed before this run
  uint64_t refreshed_ = 0;  // the sequence at the last refresh_arrivals
  int placed_beside_ = -1;  // lane 0's core, which the workers keep off
  Deadline may_place_{};
};

}  // namespace gradring
