// Worker: fills batches, or its part of each batch, until the loader quits. It is a thread of the loader, or a process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "gradring/export.h"
#include "loader/control.h"
#include "loader/order.h"
#include "loader/scratch.h"
#include "loader/slots.h"
#include "loader/source.h"
#include "runtime/team.h"

namespace gradring {

// Fills rows of a batch in place: the numbers of the samples, then the source's fields.
class Filler {
 public:
  GRADRING_API Filler(std::shared_ptr<const Source> source, int64_t batch_size);

  const SlotLayout& layout() const noexcept { return layout_; }
  const Source& source() const noexcept { return *source_; }

  // Fills the rows [range.begin, range.end) of the batch. `scratch` has source().scratch_bytes() bytes. With `skip`, it
  // leaves out samples that fail, and the rows that follow move up. It reports in *part: Code::kClosed if `stop` was asked
  // before it had read all. It times one batch in kTimedEvery part by part, into *block.
  void fill(const Order& order, int64_t batch, Range range, bool skip, std::byte* slot, std::byte* scratch,
            PartBlock* part, WorkerBlock* block, const Stop* stop, bool streaming = false) const noexcept;

 private:
  static constexpr size_t kMostFields = 64;
  static constexpr int64_t kTimedEvery = 64;
  static constexpr int64_t kTimedFirst = 3;
  Status read(const Order& order, Range rows, std::byte* slot, std::byte* scratch, int64_t* failed, const Stop* stop,
              PartTimes* times = nullptr, bool streaming = false) const noexcept;
  void read_one_by_one(const Order& order, Range range, std::byte* slot, std::byte* scratch, PartBlock* part,
                       const Stop* stop) const noexcept;

  std::shared_ptr<const Source> source_;
  SlotLayout layout_;
};

class Worker {
 public:
  // Called on the worker's thread with a part that failed, before the consumer learns of it.
  using Failed = std::function<void(uint64_t batch, const PartBlock& part)>;

  // The index of the consumer when it fills batches itself: it is no worker that RunBlock counts, and has no WorkerBlock.
  static constexpr uint32_t kConsumer = 0xffffffff;

  GRADRING_API Worker(const Control& control, const Filler& filler, SlotMap& slots, uint32_t index);
  void on_failure(Failed failed) { failed_ = std::move(failed); }
  // Makes a worker process record its resident memory from time to time.
  void watch_memory() noexcept { watch_memory_ = true; }

  // Returns when the loader quits, or when `go_on` (asked about every 100 ms while idle) says no.
  GRADRING_API void serve(const std::function<bool()>& go_on) noexcept;

  // Fills the slot of a ticket that was claimed and reserved, and commits it. False if that failed.
  bool fill(uint64_t ticket, const Order& order) noexcept;
  std::byte* scratch() const noexcept { return scratch_.data(); }

 private:
  bool may_claim(uint32_t run) noexcept;
  void run(uint32_t number) noexcept;

  Control control_;
  const Filler& filler_;
  SlotMap& slots_;
  uint32_t index_;
  uint32_t stripe_;
  std::unique_ptr<int64_t[]> announced_;  // memory for the samples of a whole batch, if batches have parts
  Failed failed_;
  bool watch_memory_ = false;
  Scratch scratch_;
};

}  // namespace gradring
