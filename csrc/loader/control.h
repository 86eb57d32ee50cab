// Control: everything except the batches that the consumer and the workers of a loader share.
//
// | variable                        | writer           | readers         | order             | why                             |
// |---------------------------------|------------------|-----------------|-------------------|---------------------------------|
// | RunBlock::turn                  | start, quit      | workers         | release / acquire | publishes the run and its rings |
// | RunBlock::active                | set_active, stop | workers         | release / acquire | wakes the workers that rest     |
// | RunBlock::from                  | set_active       | workers, next   | relaxed           | RunBlock::active publishes it   |
// | RunBlock::ahead                 | set_ahead        | statistics      | relaxed           | the consumer alone acts on it   |
// | RunBlock::streaming             | choose_stores    | workers         | relaxed           | a hint: either store is right   |
// | WorkerBlock::done               | worker, start    | start           | release / acquire | it has left rings and slots     |
// | WorkerBlock::busy_ns, wait_ns   | worker           | statistics      | RMW relaxed       | sums                            |
// | WorkerBlock::rows               | worker           | statistics      | RMW relaxed       | a sum                           |
// | WorkerBlock::timed_ns, part_ns  | worker, consumer | statistics      | RMW relaxed       | sums with two writers           |
// | WorkerBlock::resident, since_ns | worker           | messages        | relaxed           | numbers for a text              |
// | WorkerBlock::ticket             | worker, recover  | messages        | relaxed           | a number for a text             |
// | WorkerBlock::thread             | worker           | messages, start | relaxed           | the number alone matters        |
// | RunBlock::order, end, skip      | start            | workers         | plain             | RunBlock::turn publishes them   |
// | CellBlock                       | allow_more       | workers         | plain             | the ring's "free" publishes it  |
// | PartBlock, NoteBlock            | worker           | take, failed    | plain             | the ring's "full" publishes it  |
//
// There are two shapes. Threads: all workers claim from one stripe, and each fills a whole batch, or a part of one.
// Processes: each worker has a stripe of its own and fills its part of the rows of every batch. So the first batch comes
// soonest, no message says who does what, and a worker that dies leaves exactly its own stripe behind. Stripe l of n fills
// the rows [rows * l / n, rows * (l + 1) / n).
//
// n, CellBlock::pieces, is the number of workers that were active when the consumer allowed the batch. Stripes from n on
// have no rows of it. Their workers rest once they have claimed all tickets below RunBlock::from, which were allowed
// before. The consumer commits the tickets of such a stripe itself when it comes to the batch; if the worker wakes and is
// faster, the worker commits them without rows.
//
// Large batches of threads are cut into parts, each with a ticket of its own: batch b has the tickets from b * parts to
// b * parts + parts - 1. Then all threads work on the batch that is needed next. Few batches are under way, and the
// caches still hold them when the consumer reads them.
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

// Slots in addition to those of the cells: one for the batch that the consumer's loop variable still holds, and one for
// the batch that it gets next.
inline constexpr uint32_t kSpareSlots = 2;

struct ControlShape {
  uint32_t cells = 4;
  uint32_t stripes = 1;
  uint32_t workers = 1;
  uint32_t parts = 1;  // how many parts a batch has, each with a ticket; 1 if there are several stripes

  // The most pieces of a batch. Each piece comes through a stripe, or with a ticket, of its own.
  uint32_t pieces() const noexcept { return stripes > 1 ? stripes : parts; }
  uint32_t tickets() const noexcept { return cells * parts; }  // how many cells a ring has
};

struct alignas(64) RunBlock {
  explicit RunBlock(Scope scope) : turn(scope), active(scope) {}
  Signal turn;                    // the number of the run; kQuit ends the workers
  Signal active;                  // bits 0 to 15: how many workers may claim; the bits above count changes
  std::atomic<uint64_t> from{0};  // with stripes: tickets below it were allowed when other workers were active
  OrderOptions order;
  uint64_t end = 0;                    // the run has the tickets 0 to end - 1
  std::atomic<uint32_t> ahead{0};      // the most batches that have slots
  std::atomic<bool> streaming{false};  // workers should write rows around the caches
  bool skip = false;                   // leave out samples that fail

  static constexpr uint32_t kQuit = 0x7fffffff;
};

struct alignas(64) WorkerBlock {
  explicit WorkerBlock(Scope scope) : done(scope) {}
  Signal done;                        // the number of the last run that this worker has left
  std::atomic<uint64_t> busy_ns{0};   // time in which it filled batches
  std::atomic<uint64_t> wait_ns{0};   // time in which it waited for a slot
  std::atomic<uint64_t> rows{0};      // rows that it filled
  std::atomic<uint64_t> resident{0};  // bytes of a worker process, after one of its last batches
  std::atomic<int64_t> ticket{-1};    // the batch that it fills now; -1: none
  std::atomic<uint64_t> thread{0};    // pthread_self of a thread (Python's ident too), the pid of a process
  std::atomic<int64_t> since_ns{0};   // when it began that batch
  std::atomic<uint64_t> timed_ns{0};  // time of the batches that were timed part by part
  std::atomic<uint64_t> part_ns[PartTimes::kMost] = {};  // the part of timed_ns for each part of the source
};

// The batch that is allowed in a cell.
struct alignas(64) CellBlock {
  uint32_t slot = 0;    // belongs to the cell for this batch only
  uint32_t pieces = 1;  // the number of pieces into which the batch is divided
};

// What one stripe did for one batch.
struct alignas(64) PartBlock {
  int64_t rows = 0;
  int64_t skipped = 0;
  int64_t failed_sample = -1;
  Status status;
};

// A text that a worker process leaves for the consumer: a pickled exception.
struct alignas(64) NoteBlock {
  static constexpr size_t kBytes = 64 << 10;
  uint64_t size = 0;
  char bytes[kBytes] = {};
};

// A view of the shared memory that holds a loader's control blocks: the run, the workers, the cells and the stripes.
class Control {
 public:
  Control() = default;
  Control(std::byte* memory, const ControlShape& shape, Scope scope) noexcept
      : memory_(memory), shape_(shape), scope_(scope) {}

  static size_t bytes(const ControlShape& s) noexcept {
    return sizeof(RunBlock) + s.workers * (sizeof(WorkerBlock) + sizeof(NoteBlock)) + s.cells * sizeof(CellBlock) +
           s.stripes * (Ring<>::bytes(s.tickets()) + s.tickets() * sizeof(PartBlock));
  }

  // Constructs all blocks. Call it once, before any other thread or process uses them.
  void format() noexcept {
    new (&run()) RunBlock(scope_);
    for (uint32_t w = 0; w < shape_.workers; ++w) {
      new (&worker(w)) WorkerBlock(scope_);
      new (&note(w)) NoteBlock;
    }
    for (uint32_t c = 0; c < shape_.cells; ++c) new (&cell(c)) CellBlock;
    for (uint32_t l = 0; l < shape_.stripes; ++l) {
      ring(l).format();
      for (uint32_t c = 0; c < shape_.tickets(); ++c) new (&part(l, c)) PartBlock;
    }
  }

  const ControlShape& shape() const noexcept { return shape_; }
  RunBlock& run() const noexcept { return at<RunBlock>(0, 0); }
  WorkerBlock& worker(uint32_t w) const noexcept { return at<WorkerBlock>(workers_at(), w); }
  NoteBlock& note(uint32_t w) const noexcept { return at<NoteBlock>(notes_at(), w); }
  CellBlock& cell(uint32_t c) const noexcept { return at<CellBlock>(cells_at(), c); }
  // `c` is the number of a cell of the stripe's ring.
  PartBlock& part(uint32_t stripe, uint32_t c) const noexcept {
    return at<PartBlock>(parts_at(), stripe * shape_.tickets() + c);
  }
  Ring<> ring(uint32_t stripe) const noexcept {
    return Ring<>(memory_ + rings_at() + stripe * Ring<>::bytes(shape_.tickets()), shape_.tickets(), scope_);
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
  size_t rings_at() const noexcept { return parts_at() + shape_.stripes * shape_.tickets() * sizeof(PartBlock); }

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
