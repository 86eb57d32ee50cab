// Control: everything that the consumer and the workers of a loader share beside the batches themselves.
//
// | variable            | writer            | readers    | order                     | why                              |
// |---------------------|-------------------|------------|---------------------------|----------------------------------|
// | RunBlock::turn      | start, quit       | workers    | release / acquire         | hands over order, end, rings     |
// | RunBlock::active    | tune, stop        | workers    | release / acquire         | how many of them may claim       |
// | RunBlock::from      | tune, start       | workers    | relaxed, before active    | ... from this ticket on          |
// | RunBlock::ahead     | start, tune       | workers    | relaxed                   | a number to look at              |
// | RunBlock::streaming | start, tune       | workers    | relaxed                   | a hint                           |
// | WorkerBlock::done   | its worker        | start      | release / acquire         | parked: touches no ring, no slot |
// | WorkerBlock::...    | its worker        | statistics | relaxed                   | numbers to look at               |
// | RunBlock::order ..  | start             | workers    | plain, by RunBlock::turn  | written while they are parked    |
// | CellBlock           | allow             | workers    | plain, by the ring's turn | written before it is allowed     |
// | PartBlock           | the lane's worker | take       | plain, by the ring's turn | written before it is committed   |
//
// Two shapes. Threads: one lane, all workers claim from it, and each fills a whole batch. Processes: a lane for each
// worker, and each fills its part of the rows of every batch, so that the first batch comes soonest, who does what
// needs no message, and a worker that dies leaves exactly its own lane behind. Lane l of n fills the rows
// [rows * l / n, rows * (l + 1) / n).
//
// n, CellBlock::pieces, is how many workers were active when the batch was allowed. Lanes beyond it have no rows of it.
// Their workers rest once they have claimed all that was allowed before (RunBlock::from), and the consumer commits their
// tickets in passing, when it comes to the batch; a worker that wakes meanwhile may be faster, and commits nothing too.
//
// Large batches of threads are cut into parts, each with a ticket of its own: batch b has the tickets b * parts ..
// b * parts + parts - 1. All threads then work on the batch that is needed next, so that few batches are on their way
// and the caches still hold them when they are read.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "loader/order.h"
#include "loader/ring.h"
#include "loader/source.h"
#include "runtime/round_up.h"
#include "runtime/status.h"
#include "runtime/wait.h"

namespace gradring {

// Slots beside those of the cells: the batch that the consumer's loop variable still holds, and the one it gets.
inline constexpr uint32_t kSpareSlots = 2;

struct ControlShape {
  uint32_t cells = 4;
  uint32_t lanes = 1;
  uint32_t workers = 1;
  uint32_t parts = 1;  // of a batch, each a ticket; 1 if there are several lanes

  // What a batch comes by, at most: a lane, or a ticket, for each piece.
  uint32_t pieces() const noexcept { return lanes > 1 ? lanes : parts; }
  uint32_t tickets() const noexcept { return cells * parts; }  // cells of a ring
};

struct alignas(64) RunBlock {
  explicit RunBlock(Scope scope) : turn(scope), active(scope) {}
  Signal turn;                    // the number of the run; kQuit: go home
  Signal active;                  // bits 0..15: workers that may claim; above: counts changes
  std::atomic<uint64_t> from{0};  // lanes: tickets below were allowed when others were active
  OrderOptions order;
  uint64_t end = 0;                    // the run's tickets are 0 .. end - 1
  std::atomic<uint32_t> ahead{0};      // batches that have slots, at most
  std::atomic<bool> streaming{false};  // rows are better written around the caches
  bool skip = false;

  static constexpr uint32_t kQuit = 0x7fffffff;
};

struct alignas(64) WorkerBlock {
  explicit WorkerBlock(Scope scope) : done(scope) {}
  Signal done;  // the number of the run that it has left behind
  std::atomic<uint64_t> busy_ns{0};
  std::atomic<uint64_t> wait_ns{0};  // for space
  std::atomic<uint64_t> rows{0};
  std::atomic<uint64_t> resident{0};  // bytes of a worker process, after one of its last batches
  std::atomic<int64_t> ticket{-1};    // being filled; -1: none
  std::atomic<uint64_t> thread{0};  // pthread_self of a thread (Python's ident too), the pid of a process that is ready
  std::atomic<int64_t> since_ns{0};                      // when it began that
  std::atomic<uint64_t> timed_ns{0};                     // of the batches whose parts were timed; some of it
  std::atomic<uint64_t> part_ns[PartTimes::kMost] = {};  // went to these parts of the source, the rest to its rows
};

// The batch that is allowed in a cell.
struct alignas(64) CellBlock {
  uint32_t slot = 0;    // none belongs to a cell for longer
  uint32_t pieces = 1;  // that it is cut into
};

// What one lane did for one batch.
struct alignas(64) PartBlock {
  int64_t rows = 0;
  int64_t skipped = 0;
  int64_t failed_sample = -1;
  Status status;
};

// A text that a worker process leaves for the consumer, such as a pickled exception.
struct alignas(64) NoteBlock {
  static constexpr size_t kBytes = 64 << 10;
  uint64_t size = 0;
  char bytes[kBytes] = {};
};

// A view on such memory.
class Control {
 public:
  Control() = default;
  Control(std::byte* memory, const ControlShape& shape, Scope scope) noexcept
      : memory_(memory), shape_(shape), scope_(scope) {}

  static size_t bytes(const ControlShape& s) noexcept {
    return sizeof(RunBlock) + s.workers * (sizeof(WorkerBlock) + sizeof(NoteBlock)) + s.cells * sizeof(CellBlock) +
           s.lanes * (Ring<>::bytes(s.tickets()) + s.tickets() * sizeof(PartBlock));
  }

  // Once, before anybody else looks.
  void format() noexcept {
    new (&run()) RunBlock(scope_);
    for (uint32_t w = 0; w < shape_.workers; ++w) {
      new (&worker(w)) WorkerBlock(scope_);
      new (&note(w)) NoteBlock;
    }
    for (uint32_t c = 0; c < shape_.cells; ++c) new (&cell(c)) CellBlock;
    for (uint32_t l = 0; l < shape_.lanes; ++l) {
      ring(l).format();
      for (uint32_t c = 0; c < shape_.tickets(); ++c) new (&part(l, c)) PartBlock;
    }
  }

  const ControlShape& shape() const noexcept { return shape_; }
  RunBlock& run() const noexcept { return at<RunBlock>(0, 0); }
  WorkerBlock& worker(uint32_t w) const noexcept { return at<WorkerBlock>(workers_at(), w); }
  NoteBlock& note(uint32_t w) const noexcept { return at<NoteBlock>(notes_at(), w); }
  CellBlock& cell(uint32_t c) const noexcept { return at<CellBlock>(cells_at(), c); }
  // `c`: of the ring's cells.
  PartBlock& part(uint32_t lane, uint32_t c) const noexcept {
    return at<PartBlock>(parts_at(), lane * shape_.tickets() + c);
  }
  Ring<> ring(uint32_t lane) const noexcept {
    return Ring<>(memory_ + rings_at() + lane * Ring<>::bytes(shape_.tickets()), shape_.tickets(), scope_);
  }

 private:
  template <class T>
  T& at(size_t offset, uint32_t index) const noexcept {
    return *(reinterpret_cast<T*>(memory_ + offset) + index);
  }
  size_t workers_at() const noexcept { return sizeof(RunBlock); }
  size_t notes_at() const noexcept { return workers_at() + shape_.workers * sizeof(WorkerBlock); }
  size_t cells_at() const noexcept { return notes_at() + shape_.workers * sizeof(NoteBlock); }
  size_t parts_at() const noexcept { return cells_at() + shape_.cells * sizeof(CellBlock); }
  size_t rings_at() const noexcept { return parts_at() + shape_.lanes * shape_.tickets() * sizeof(PartBlock); }

  std::byte* memory_ = nullptr;
  ControlShape shape_;
  Scope scope_ = Scope::kThreads;
};

// Where the parts of a batch lie in a slot: the numbers of its samples, then each field, 64-byte aligned.
struct SlotLayout {
  SlotLayout(const std::vector<FieldSpec>& fields, int64_t batch_size) {
    size_t at = round_up(static_cast<size_t>(batch_size) * sizeof(int64_t));
    for (const FieldSpec& field : fields) {
      offsets.push_back(at);
      row_bytes.push_back(field.row_bytes());
      at += round_up(static_cast<size_t>(batch_size) * field.row_bytes());
      all_row_bytes += field.row_bytes();
    }
    bytes = at;
  }

  std::vector<size_t> offsets;
  std::vector<size_t> row_bytes;
  size_t all_row_bytes = 0;
  size_t bytes = 0;
};

}  // namespace gradring
