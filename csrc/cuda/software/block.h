// The parts of a running block.
#pragma once

#include <deque>
#include <vector>

#include "cuda/software/fiber.h"
#include "cuda/software/grid.h"

namespace gradring::software {

struct Thread {
  enum class State { kReady, kSpinning, kAtBarrier, kInWarp, kDone };
  Context context;
  Coordinates at{};
  char* stack = nullptr;
  State state = State::kReady;
  Site site;
  unsigned mask = 0;    // the mask of the warp operation that it waits in
  uint64_t value = 0;   // its input to a barrier, shuffle or vote
  int source = 0;       // the lane whose value a shuffle reads
  uint64_t result = 0;  // its result of a barrier, shuffle or vote
};

// The lanes of a warp that synchronize under one mask. Two points alternate in announcing orders to ThreadSanitizer: a
// fast lane that is already in the next meeting must not be ordered before a slow lane that has not left this one.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  unsigned turn = 0;
  char points[2] = {};
};

struct Warp {
  std::deque<Meeting> meetings;
  unsigned waiting = 0, exited = 0;  // the lanes in a warp operation, and those that have ended
};

struct Block {
  int count = 0, live = 0;
  std::vector<Thread> threads;
  int arrived = 0;  // threads that wait at the block's barrier
  Site site;
  Vote vote = Vote::kNone;
  unsigned turn = 0;
  char points[2] = {};
  std::vector<Warp> warps;
  struct Shared {
    const void* key;
    void* memory;
    size_t bytes;
  };
  std::vector<Shared> shared;
  size_t shared_bytes = 0;
  void* dynamic = nullptr;

  Block(const Launch& launch, uint64_t number);
  void message(const Thread& thread, char* text, size_t size) const;
};

inline constexpr size_t kStaticSharedLimit = 48 << 10;
inline constexpr size_t kSharedLimit = 227 << 10;

// The running thread and its block.
Block& running_block();
Thread& running_thread();
void yield();                           // returns to the scheduler
void* new_shared_memory(size_t bytes);  // filled with NaN; freed when the grid has ended

}  // namespace gradring::software
