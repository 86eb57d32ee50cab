// Helpers for the collectives' tests: they run the same body on every rank, as threads or forked processes, and make arrays.
//
// | variable    | writer      | readers      | order            | why                                      |
// |-------------|-------------|--------------|------------------|------------------------------------------|
// | World::gate | each child  | all children | acq_rel, acquire | each child has opened all others' pidfds |
// | World::pids | that child  | all children | release, acquire | whose pidfd to open                      |
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/group.h"

namespace gradring::testing {

using std::chrono::milliseconds;
using std::chrono::seconds;
using RankBody = std::function<void(Group&)>;

// Returns a promised time. If tasks waited for a processor in more than a tenth of the last ten seconds, it returns five
// times that, and prints a line.
inline std::chrono::nanoseconds promised(std::chrono::nanoseconds time) {
  double share = 100;
  if (std::FILE* const file = std::fopen("/proc/pressure/cpu", "r")) {
    if (std::fscanf(file, "some avg10=%lf", &share) != 1) share = 100;
    std::fclose(file);
  }
  if (share <= 10) return time;
  static const bool told = std::fprintf(stderr, "deadlines are five times those promised: the machine is loaded\n") > 0;
  return told ? 5 * time : time;
}

// Runs each rank in a thread of its own.
inline void on_threads(int ranks, const RankBody& body, std::chrono::nanoseconds timeout = seconds(20)) {
  auto groups = Group::of_threads(ranks, timeout);
  std::vector<std::thread> threads;
  for (auto& group : groups) {
    threads.emplace_back([&body, own = std::move(group)]() mutable {
      body(*own);
      own.reset();  // the rank ends before its thread does
    });
  }
  for (auto& thread : threads) thread.join();
}

// The descriptors that a group of processes shares. They are made before the fork.
struct World {
  explicit World(int ranks) : segment(ControlBlock::create(ranks, 0)) {
    for (int i = 0; i < ranks; ++i) data.push_back(OwnSegment::create());
    // Each child writes its process id to this page, and waits until all have done so: then every child can open the
    // pidfds of the others.
    gate =
        static_cast<std::atomic<int>*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pids = reinterpret_cast<std::atomic<int>*>(reinterpret_cast<char*>(gate) + 64);
  }
  ~World() {
    close(segment);
    for (const int fd : data) close(fd);
    munmap(gate, 4096);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int segment;
  std::vector<int> data;
  std::atomic<int>* gate;
  std::atomic<int>* pids;
};

// Runs each rank in a forked process, whose exit status `body` returns. Returns the children's wait statuses, by rank.
inline std::vector<int> in_processes(int ranks, const std::function<int(Group&)>& body,
                                     std::chrono::nanoseconds timeout = seconds(20),
                                     const std::function<void(const std::vector<pid_t>&)>& while_they_run = {}) {
  World world(ranks);
  std::vector<pid_t> children;
  for (int rank = 0; rank < ranks; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      int status = 99;
      try {
        world.pids[rank].store(getpid(), std::memory_order_release);
        std::vector<int> pidfds(static_cast<size_t>(ranks), -1);
        for (int other = 0; other < ranks; ++other) {
          while (world.pids[other].load(std::memory_order_acquire) == 0) usleep(100);
          if (other != rank)
            pidfds[static_cast<size_t>(other)] =
                static_cast<int>(syscall(SYS_pidfd_open, world.pids[other].load(std::memory_order_acquire), 0));
        }
        world.gate->fetch_add(1, std::memory_order_acq_rel);
        while (world.gate->load(std::memory_order_acquire) < ranks) usleep(100);
        auto group = Group::join(world.segment, rank, ranks, 7, pidfds, world.data, timeout);
        status = body(*group);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
      }
      _exit(status);
    }
    children.push_back(child);
  }
  if (while_they_run) while_they_run(children);
  std::vector<int> statuses;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    statuses.push_back(status);
  }
  return statuses;
}

// Contiguous memory of a rank: in its segment, or private.
class Memory {
 public:
  Memory(Group& group, size_t bytes, bool shared) : group_(group), own_(shared ? 0 : bytes + 1) {
    data_ = shared ? static_cast<std::byte*>(group.allocate(bytes)) : own_.data();
    shared_ = shared;
  }
  ~Memory() {
    if (shared_) group_.segments()->own.free(data_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T = std::byte>
  T* as() const noexcept {
    return reinterpret_cast<T*>(data_);
  }

 private:
  Group& group_;
  std::vector<std::byte> own_;
  std::byte* data_;
  bool shared_;
};

inline Call barrier_call() {
  Call call;
  call.agreement.kind = Collective::kBarrier;
  return call;
}

inline Call reduce_call(CommOperand in, CommOperand out, Element element, Reduction reduction) {
  Call call;
  call.agreement = {Collective::kAllReduce, element, reduction, 0, false, static_cast<uint64_t>(in.elements())};
  call.in = std::move(in);
  call.out = std::move(out);
  return call;
}

inline Call call_of(Collective kind, CommOperand in, CommOperand out, Element element) {
  Call call;
  call.agreement = {
      kind, element, Reduction::kSum,
      0,    false,   static_cast<uint64_t>(kind == Collective::kReceive ? out.elements() : in.elements())};
  call.in = std::move(in);
  call.out = std::move(out);
  return call;
}

// A message of float32 numbers to or from a rank.
inline Call message_to(int peer, void* data, int64_t count, bool sends) {
  const CommOperand all(data, count, 4);
  Call call = call_of(sends ? Collective::kSend : Collective::kReceive, all, all, Element::kFloat32);
  call.peer = peer;
  return call;
}

}  // namespace gradring::testing
