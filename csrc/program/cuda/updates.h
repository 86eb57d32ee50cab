// DeviceUpdates: updates of parameters by gradients that a function of the user computes on a CUDA device. All parameters of one
// group of the optimizer, and of one dtype, are updated by one launch, which finds the arrays in a table in device memory. The host
// writes that table for each update into one of kSlots pinned slots, and a copy brings it to the device. So it waits, by asking an
// event, only if as many copies have not begun yet.
//
// The norm, the clipping factor and the check of the gradients stay on the device, and so does a fault: see UpdateLedger. The host
// learns of losses and faults by a report: it queues a copy of the ledger, and looks later whether it has come.
//
// One thread at a time may use an object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/memory.h"
#include "cuda/stream.h"
#include "ops/cuda_kernels.h"
#include "program/cuda/update_ledger.h"

namespace gradring {

// Parameters of one dtype that have the same rule.
struct UpdateGroup {
  OpCall call;       // the update of one of them, which must stay where it is
  int64_t rate = 0;  // the number of its learning rate
  std::vector<CudaSpan> spans;
};

struct UpdateOptions {
  int device = 0;
  int processors = 1;
  int64_t most_rates = 1;
  bool check = true;              // a gradient that is not finite is a fault
  double limit = -1;              // the largest norm of all gradients; negative: any
  cuda::Lender lender = nullptr;  // of the memory on the device
};

class DeviceUpdates {
 public:
  static constexpr int kSlots = 4;

  // Waits until the device has its tables, which `stream` brings there. Throws Error.
  DeviceUpdates(std::vector<UpdateGroup> groups, const UpdateOptions& options, void* stream);

  // The next three queue work on the caller's stream. Gradients and sums are addresses on the device of arrays in C order, in the
  // order of the groups' spans. They throw Error.
  void loss(const void* loss, Dtype dtype, int64_t entry, void* stream);
  // Adds each gradient, times `samples`, to a sum, which begins with it if it is the `first` one.
  void add(const std::vector<void*>& sums, const std::vector<const void*>& gradients, double samples, bool first,
           void* stream);
  void update(const std::vector<const void*>& gradients, const std::vector<double>& rates, const UpdateHeader& header,
              void* stream);
  // How many parameters the last call of `update` has updated, if it has thrown.
  int64_t updated() const noexcept { return updated_; }

  void queue_report(void* stream);
  // Whether the report has come; with `wait`, it waits for it. One must have been queued.
  bool take_report(bool wait, UpdateLedger* report);
  void clear_fault(void* stream);

 private:
  struct Slot {
    std::byte* host = nullptr;
    cuda::Event copied;
  };
  // The parts of a group's spans.
  struct Range {
    int64_t first = 0, count = 0;
    Dtype dtype = Dtype::kFloat32;
    CudaSpansRun run = nullptr;
    int64_t spans = 0;
  };

  // Whether the last turn has failed, and whether done_ then comes behind what it had queued.
  enum class Failed { kNo, kMarked, kUnmarked };

  // Calls `queue`, which queues work on the caller's stream: behind all work before, and before all later work, on any stream.
  template <class Queue>
  void in_turn(void* stream, Queue&& queue);
  void wait_after_failure();
  void queue_table(const UpdateHeader& header, const std::vector<double>& rates, const std::vector<CudaSpan>& spans,
                   void* stream);
  std::vector<Range> ranges_by_dtype() const;
  CudaSpans spans_of(const Range& range) const noexcept;
  UpdateLedger* ledger() const noexcept { return static_cast<UpdateLedger*>(ledger_memory_.data()); }
  const UpdateHeader* header() const noexcept { return static_cast<const UpdateHeader*>(table_.data()); }

  std::vector<UpdateGroup> groups_;
  std::vector<Range> ranges_;
  UpdateOptions options_;
  std::vector<CudaSpan> spans_;  // those of all groups
  int64_t part_count_ = 0, updated_ = 0;
  size_t table_bytes_ = 0, spans_at_ = 0;
  int next_ = 0;
  Failed failed_ = Failed::kNo;
  // The order matters: freeing the device's memory waits for the device, and comes first.
  cuda::PinnedMemory report_, host_slots_, host_parts_;
  cuda::Event reported_, done_;  // done_: the end of the last turn
  Slot slots_[kSlots];
  cuda::DeviceMemory parts_, sums_, table_, ledger_memory_;
};

}  // namespace gradring
