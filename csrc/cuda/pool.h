// MemoryPool: blocks of device memory for the results of eager calls, which cost no call of the CUDA runtime's allocator once they
// have been used before.
//
// The caller that returns a block names the stream that used it last. The pool records an event there, and the stream of the
// next user waits for that event. So any stream may reuse a block, and nothing waits on the host. A block that is given
// back while its stream captures a graph stays aside, because the graph will use it at every launch.
//
// Any thread may use a pool; a lock guards it.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "cuda/memory.h"
#include "cuda/stream.h"

namespace gradring::cuda {

class MemoryPool {
 public:
  struct Block {
    DeviceMemory memory;
    Event used;
  };

  explicit MemoryPool(int device) noexcept : device_(device) {}
  // The pool of a device, which lives until the process ends. Throws Error if there is no such device.
  static MemoryPool& of(int device);
  // Frees the free blocks of all pools; returns whether there were any.
  static bool trim_all() noexcept;
  // The same as the process ends: blocks that come back later are freed at once.
  static void close_all() noexcept;

  int device() const noexcept { return device_; }
  // A block of at least so many bytes; work that is queued on the stream afterwards may use it. Throws Error.
  Block take(size_t bytes, void* stream);
  // Takes a block back. This stream was the last to use it.
  void give(Block block, void* stream) noexcept;
  // Frees the free blocks; returns whether there were any.
  bool trim() noexcept;
  size_t free_blocks() noexcept;

 private:
  bool find(size_t bytes, Block* block) noexcept;
  void put_back(Block block) noexcept;
  void close() noexcept;

  int device_;
  std::mutex mutex_;
  bool closed_ = false;
  std::vector<Block> free_;
  std::vector<Block> aside_;  // blocks that a captured graph uses
};

}  // namespace gradring::cuda
