// One launched kernel: its blocks, their threads as fibers, barriers, shuffles, votes and shared memory.
//
// A grid runs in steps, and only while its caller holds the device's lock. A step ends when the kernel is finished or when
// every thread that could run spins on memory; the caller then does other work and steps again. So kernels that wait for
// each other, across streams or across the threads of one process, all come to their end.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <vector>

namespace gradring::software {

using Site = std::source_location;

struct Coordinates {
  uint3 thread, block;
  dim3 threads, blocks;
};

struct Launch {
  dim3 blocks, threads;
  size_t dynamic_shared = 0;
  const char* name = "";
  const void* kernel = nullptr;
  std::function<void()> body;  // calls the kernel with its own copy of the arguments
};

// Identities of GPU threads that have ended. ThreadSanitizer needs half a millisecond to make one, so the threads of a grid take over
// those of threads whose end is ordered before the grid's begin. This hides no race: what the former thread did, and what it knew to
// be ordered before it, is ordered before the new thread anyway. Each keeps its stack, whose content no other identity has seen.
// Without ThreadSanitizer, there are none.
class Identities {
 public:
  Identities() = default;
  ~Identities();
  Identities(const Identities&) = delete;
  Identities& operator=(const Identities&) = delete;
  struct Taken {
    void* identity = nullptr;
    char* stack = nullptr;
  };
  void put(const Taken& taken);
  Taken take();  // without an identity if there is none
  void put_all(Identities* others);
  void clear();

 private:
  static constexpr size_t kMost = 1024;  // each of them takes half a megabyte
  static void give_up(const Taken& taken);
  std::vector<Taken> all_;
};

enum class BlockOrder { kForward, kReverse, kSeeded };

struct GridOptions {
  BlockOrder order = BlockOrder::kForward;  // the order of blocks, and of the threads within a block
  uint64_t seed = 0;
  int resident_threads = 4 * 2048;  // further blocks begin when others have finished
  Identities* spare = nullptr;      // taken first; afterwards it holds those of this grid's threads
};

class Grid {
 public:
  Grid(Launch launch, const GridOptions& options);
  ~Grid();
  // Runs a step. Returns true when the kernel has finished, and false when every thread that could run spins.
  bool step();

  struct State;

 private:
  std::unique_ptr<State> state_;
};

// Counts how often threads of any grid have done more than spin.
extern int64_t grid_moves;

// Counts how often a thread took over the identity of another one.
extern int64_t identities_taken_over;

// The name of the running kernel, for messages.
const char* running_kernel();

// Functions that the running GPU thread calls. The participants of one barrier, shuffle or vote must call it at the
// same place in the source.
extern const Coordinates* now;
enum class Vote { kNone, kOr, kAnd, kCount };
int block_barrier(Vote vote, bool mine, const Site& site);
void warp_barrier(unsigned mask, const Site& site);
uint64_t shuffle(unsigned mask, uint64_t mine, int source, const Site& site);  // does not order memory accesses
unsigned ballot(unsigned mask, bool mine, const Site& site);                   // does not order memory accesses
void* shared_memory(const void* key, size_t bytes, const char* name);
void* dynamic_shared_memory();
void relax();  // called in every turn of a loop that waits for memory

inline unsigned linear_thread() {
  return now->thread.x + now->threads.x * (now->thread.y + now->threads.y * now->thread.z);
}
inline int lane_number() { return static_cast<int>(linear_thread() & 31); }

}  // namespace gradring::software
