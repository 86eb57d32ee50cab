// The software runtime's state: queued operations, streams, events, graphs and memory. Only the holder of the
// device's lock (see entry.h) may use it.
#pragma once

#include <cuda_runtime_api.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/software/control.h"
#include "cuda/software/grid.h"

namespace gradring::software {

// A counted pointer without atomics: ThreadSanitizer would treat them as orders between the operations.
template <class T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(object) { keep(); }
  Ref(const Ref& other) : object_(other.object_) { keep(); }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ && --object_->references == 0) delete object_;
  }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  bool operator==(const Ref&) const = default;

 private:
  void keep() {
    if (object_) ++object_->references;
  }
  T* object_ = nullptr;
};

// What an operation does: a kernel, or a function that runs without a pause.
struct Work {
  std::string name;
  std::function<void()> run;
  std::function<Launch()> launch;  // makes the kernel's launch; empty for other work
  bool unlocked = false;           // a host function: the lock is free while it runs
};

struct Operation {
  int references = 0;
  Work work;
  std::vector<Ref<Operation>> after;
  std::unique_ptr<Grid> grid;
  bool begun = false, done = false;
  uint64_t rank = 0;        // that of its stream when it was queued
  int64_t finished_at = 0;  // the device's clock at the end, in microseconds
  void* identity = nullptr;
  Identities spare;  // of threads that ended before this operation, or in it; one that comes after it takes them
  char edge = 0;     // the address at which its end is announced
  ~Operation();
};
using OperationRef = Ref<Operation>;

struct Node {
  Work work;
  std::vector<int> after;
};

struct Capture {
  int references = 0;
  std::vector<Node> nodes;
  cudaStreamCaptureMode mode{};
  std::thread::id thread;
  CUstream_st* origin = nullptr;
  bool broken = false;
};
using CaptureRef = Ref<Capture>;

struct Allocation {
  enum class Kind { kDevice, kPinned, kRegistered, kImported };
  Kind kind = Kind::kDevice;
  size_t bytes = 0, mapped = 0;
  int device = 0;
  int memfd = -1;
  bool stream_ordered = false;
  bool freed = false;  // quarantined: no access is allowed
};

struct State {
  Options options;
  pid_t process = 0;
  std::mt19937_64 random;
  std::vector<OperationRef> pending;
  std::vector<CUstream_st*> streams;  // the legacy stream of each device first
  std::vector<CUevent_st*> events;
  std::vector<CUgraph_st*> graphs;
  std::vector<CUgraphExec_st*> executables;
  std::map<uintptr_t, Allocation> memory;
  std::vector<size_t> used;  // bytes of each device
  std::map<const void*, int> dynamic_shared;
  std::map<std::string, int> calls;
  cudaError_t sticky = cudaSuccess;
  int64_t finished = 0;  // the device's clock
  Identities former;     // of the threads of the device before: nothing that they did is left
};
State& state();

// memory.cc
Allocation* allocation_of(const void* address, size_t bytes, uintptr_t* base = nullptr);
bool is_device_kind(const Allocation& allocation);

// scheduler.cc
cudaError_t submit(CUstream_st& stream, Work work, std::vector<OperationRef> more = {});
OperationRef queue(CUstream_st& stream, Work work, std::vector<OperationRef> after);
void let_run();  // runs what the schedule wants to run after something was queued
// These take the operation itself: while a host function runs without the lock, other threads change streams and events.
void wait_for(OperationRef operation);
void let_run_for_query(OperationRef operation);  // lets a program that polls make progress in every schedule
void run_some();                                 // makes the random progress of a seeded schedule
void finish_all();

bool is_sticky(cudaError_t code);

}  // namespace gradring::software

struct CUstream_st {
  int device = 0;
  bool blocking = true;  // ordered with the legacy stream
  bool legacy = false;
  bool per_thread = false;  // a thread's default stream, which no call destroys
  int priority = 0;
  uint64_t rank = 0;  // seeded schedules may prefer streams of a lower rank, and draw it anew from time to time
  gradring::software::OperationRef tail;
  gradring::software::CaptureRef capture;
  std::vector<int> capture_tail;
};
struct CUevent_st {
  bool timing = true;
  gradring::software::OperationRef at;
  gradring::software::CaptureRef capture;
  std::vector<int> capture_at;
};
struct CUgraph_st {
  std::vector<gradring::software::Node> nodes;
};
struct CUgraphExec_st {
  std::vector<gradring::software::Node> nodes;
  gradring::software::OperationRef last;
};
