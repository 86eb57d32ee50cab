// DeviceFeed: brings the batches of a source to a device, each by one copy on a stream of its own, and hands them to consumers.
//
// A batch lies in a device slot until its consumer releases it. The feed returns the host's memory of a batch to the source as
// soon as its copy is done. A host function behind the copy does that, even if the consumer never asks for another batch. Nothing
// waits on the host for the device; streams wait for events:
//
//     copies      copy 0        | copy 1 (slot 1) | copy 2 (slot 0: waits for what used batch 0)
//     consumer      wait copy 0 | uses batch 0    | wait copy 1 | uses batch 1
//
// A consumer releases a batch with all streams that have used it. If one of them is capturing a graph, an event of it would belong
// to the graph; the slot then stays aside until a later call finds that the capture has ended, and records its event there.
// If consumers keep all slots, the feed adds some, up to a limit; then next() waits for a release.
//
// One thread at a time calls next; any thread calls release. The source's release must bear being called from another thread
// than next, at any time.
//
// | variable  | writer          | readers | order  | why                                        |
// |-----------|-----------------|---------|--------|--------------------------------------------|
// | returned_ | release         | next    | Signal | wakes a consumer that waits for a slot     |
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/pool.h"
#include "cuda/stream.h"
#include "runtime/batch_source.h"
#include "runtime/wait.h"

namespace gradring::cuda {

class DeviceFeed {
 public:
  struct Options {
    int device = 0;
    uint32_t slots = 2;
    uint32_t most = 2;  // as many as may exist
  };
  struct Handed {
    uint32_t slot = 0;
    std::byte* data = nullptr;  // device memory: field i begins at offsets()[i]
    int64_t rows = 0;           // 0: the epoch is over
    int64_t position = 0;
  };

  // row_bytes: of each field. The source must outlive this object. Throws Error.
  DeviceFeed(BatchSource& source, std::vector<size_t> row_bytes, int64_t batch_size, const Options& options);
  // Ends the feed, if end() has not. All batches must have been released.
  ~DeviceFeed();
  DeviceFeed(const DeviceFeed&) = delete;
  DeviceFeed& operator=(const DeviceFeed&) = delete;

  int device() const noexcept { return options_.device; }
  const std::vector<size_t>& offsets() const noexcept { return offsets_; }
  size_t slot_bytes() const noexcept { return bytes_; }

  // Gets the next batch, and makes the consumer's stream wait for its copy. kTimeout: no batch came before the deadline, or
  // consumers keep all slots (then held() says so). Other codes are the source's, or a CUDA call's failure, which names the batch
  // that it stopped. The next call tries that batch again: the feed loses none.
  Status next(Handed* handed, void* stream, Deadline deadline) noexcept;
  // Whether the last call of next ended because consumers keep all slots.
  bool held() const noexcept { return held_; }
  uint32_t slots() noexcept;
  // Waits until the queued copies have ended, and gives their memory back to the source, which may then go. No call of next may
  // follow; batches that were handed out stay.
  void end() noexcept;
  // Takes a batch back that work on these streams may still use. Any thread may call it.
  void release(uint32_t slot, const std::vector<void*>& streams) noexcept;

 private:
  struct Slot {
    MemoryPool::Block memory;
    Event copied;
    std::vector<Event> uses;       // work that may still read the slot
    std::vector<void*> capturing;  // streams that captured a graph when the slot was released
    bool free = true;
  };
  // A batch whose copy may still run. The host function and the destructor share it.
  struct Copy;
  struct Shared;

  bool few_copies(Deadline deadline);
  Status take_slot(uint32_t* slot, Deadline deadline);
  bool find_free(uint32_t* slot);
  void add_slot();
  Slot& slot_of(uint32_t number) noexcept;
  bool note_use(Slot* slot, void* stream) noexcept;
  void end_captures(Slot* slot) noexcept;
  Status bring(Deadline deadline);
  int queue_copy(Slot* slot, const Batch& batch);
  std::string name_of_next() const;
  int copy_batch(std::byte* to, const Batch& batch) noexcept;

  BatchSource& source_;
  Options options_;
  std::vector<size_t> row_bytes_, offsets_;
  size_t bytes_ = 0;
  Batch waiting_;
  bool has_waiting_ = false, held_ = false, ended_ = false;
  Handed brought_;  // a batch whose copy is queued, and for which a consumer's stream could not wait yet; or no rows
  int64_t handed_ = 0;              // how many batches consumers have got
  std::shared_ptr<Shared> shared_;  // what the host functions need

  std::mutex mutex_;  // guards slots_ and spare_
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Event> spare_;
  Stream copies_;
  Signal returned_;
  uint32_t turns_ = 0;
};

}  // namespace gradring::cuda
