// The contenders of ring_bench. Each hands slot numbers from fill, which any producer calls, to take, which the consumer calls,
// and back.
//
// | variable            | writer    | readers   | order           | why                                               |
// |---------------------|-----------|-----------|-----------------|---------------------------------------------------|
// | TurnQueue::Cell     | push, pop | push, pop | release/acquire | the turn publishes the value, or that it was read |
// | TurnQueue::head_    | push      | push      | RMW relaxed     | tickets need only be unique                       |
// | TurnQueue::tail_    | pop       | pop       | RMW relaxed     | a ticket: unique is enough                        |
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "loader/ring.h"

#if __has_include(<concurrentqueue/blockingconcurrentqueue.h>)
#include <concurrentqueue/blockingconcurrentqueue.h>
#define GRADRING_HAS_CONCURRENT_QUEUE
#endif
#if __has_include(<readerwriterqueue/readerwritercircularbuffer.h>)
#include <readerwriterqueue/readerwritercircularbuffer.h>
#define GRADRING_HAS_READER_WRITER_QUEUE
#endif

namespace gradring {

class RingOfSlots {
 public:
  explicit RingOfSlots(uint32_t slots)
      : memory_(std::aligned_alloc(64, Ring<>::bytes(slots))), ring_(memory_.get(), slots, Scope::kThreads) {
    ring_.format();
  }

  template <class Body>
  void fill(const Body& body) {
    const uint64_t ticket = ring_.claim();
    ring_.reserve(ticket);
    body(ring_.slot(ticket));
    ring_.commit(ticket);
  }
  template <class Body>
  void take(const Body& body) {
    ring_.await(next_);
    body(ring_.slot(next_));
    ring_.release(next_++);
  }

 private:
  struct Free {
    void operator()(void* memory) const noexcept { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  Ring<> ring_;
  uint64_t next_ = 0;
};

// Two queues of slot numbers: pop from one, work, push to the other.
template <class Queue>
class TwoQueues {
 public:
  explicit TwoQueues(uint32_t slots) : full_(slots), free_(slots) {
    for (uint32_t i = 0; i < slots; ++i) free_.push(i);
  }

  template <class Body>
  void fill(const Body& body) {
    move(free_, full_, body);
  }
  template <class Body>
  void take(const Body& body) {
    move(full_, free_, body);
  }

 private:
  template <class Body>
  static void move(Queue& from, Queue& to, const Body& body) {
    const uint32_t slot = from.pop();
    body(slot);
    to.push(slot);
  }

  Queue full_, free_;
};

// The bounded queue of turns that Dmitry Vyukov published and rigtorp::MPMCQueue refined: tickets from two counters,
// a turn in each cell. After a short spin, waiting threads yield, because they may share two cores.
class TurnQueue {
 public:
  explicit TurnQueue(uint32_t capacity) : cells_(capacity) {}

  void push(uint32_t value) {
    const uint64_t ticket = head_.fetch_add(1, std::memory_order_relaxed);
    Cell& cell = cells_[ticket % cells_.size()];
    wait(cell, 2 * (ticket / cells_.size()));
    cell.value = value;
    cell.turn.store(2 * (ticket / cells_.size()) + 1, std::memory_order_release);
  }
  uint32_t pop() {
    const uint64_t ticket = tail_.fetch_add(1, std::memory_order_relaxed);
    Cell& cell = cells_[ticket % cells_.size()];
    wait(cell, 2 * (ticket / cells_.size()) + 1);
    const uint32_t value = cell.value;
    cell.turn.store(2 * (ticket / cells_.size()) + 2, std::memory_order_release);
    return value;
  }

 private:
  struct alignas(64) Cell {
    std::atomic<uint64_t> turn{0};
    uint32_t value = 0;
  };
  static void wait(const Cell& cell, uint64_t turn) {
    for (int looks = 0; cell.turn.load(std::memory_order_acquire) != turn; ++looks) {
      if (looks < 200) {
        cpu_relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

  std::vector<Cell> cells_;
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
};
using SpinningMpmc = TwoQueues<TurnQueue>;

class LockedQueue {
 public:
  explicit LockedQueue(uint32_t) {}

  void push(uint32_t value) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      values_.push_back(value);
    }
    changed_.notify_one();
  }
  uint32_t pop() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !values_.empty(); });
    const uint32_t value = values_.front();
    values_.pop_front();
    return value;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<uint32_t> values_;
};
using MutexQueue = TwoQueues<LockedQueue>;

// Either of moodycamel's queues. Where the bounded one is full, the producer waits.
template <class Queue>
class Moodycamel {
 public:
  explicit Moodycamel(uint32_t capacity) : queue_(capacity) {}

  void push(uint32_t value) {
    if constexpr (requires { queue_.wait_enqueue(value); }) {
      queue_.wait_enqueue(value);
    } else {
      queue_.enqueue(value);
    }
  }
  uint32_t pop() {
    uint32_t value = 0;
    queue_.wait_dequeue(value);
    return value;
  }

 private:
  Queue queue_;
};
#ifdef GRADRING_HAS_CONCURRENT_QUEUE
using MoodycamelMpmc = TwoQueues<Moodycamel<moodycamel::BlockingConcurrentQueue<uint32_t>>>;
#endif
#ifdef GRADRING_HAS_READER_WRITER_QUEUE
using MoodycamelSpsc = TwoQueues<Moodycamel<moodycamel::BlockingReaderWriterCircularBuffer<uint32_t>>>;
#endif

}  // namespace gradring
