// Streams, events, graphs and pinned memory of the current device, in types that need no CUDA header. A constructor throws
// Error that names `who` and the call; every other function returns a code of the CUDA runtime, 0 for success.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

namespace gradring::cuda {

// Owns a handle of the CUDA runtime; kDestroy destroys it, and must not throw.
template <void (*kDestroy)(void*) noexcept>
class Owned {
 public:
  Owned() = default;
  explicit Owned(void* handle) noexcept : handle_(handle) {}
  ~Owned() {
    if (handle_) kDestroy(handle_);
  }
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  void* get() const noexcept { return handle_; }
  explicit operator bool() const noexcept { return handle_ != nullptr; }

 private:
  void* handle_ = nullptr;
};

void destroy_stream(void* stream) noexcept;
void destroy_event(void* event) noexcept;
void destroy_graph(void* executable) noexcept;
void free_pinned(void* memory) noexcept;

using Stream = Owned<destroy_stream>;  // a cudaStream_t
using Event = Owned<destroy_event>;    // a cudaEvent_t
using Graph = Owned<destroy_graph>;    // a cudaGraphExec_t
using PinnedMemory = Owned<free_pinned>;

enum class Priority { kUsual, kHigh };

inline constexpr const char* kNotInGraphs =
    "which can neither wait on the host nor get new memory: do this before the capture begins, or after it has ended";

// While it lives, this thread may take and free memory and ask for events although a stream captures that these calls do not touch.
// CUDA would else end a capture of this thread, or one of another thread in the global mode, and refuse the call. Destructors need it
// most: garbage may be collected at any time.
class Relaxed {
 public:
  Relaxed() noexcept;
  ~Relaxed();
  Relaxed(const Relaxed&) = delete;
  Relaxed& operator=(const Relaxed&) = delete;

 private:
  int before_ = -1;
};

// A stream that is not ordered with the legacy stream.
Stream make_stream(const std::string& who, Priority priority = Priority::kUsual);
Event make_event(const std::string& who);  // measures no time
Event make_clock(const std::string& who);  // an event for `elapsed`
PinnedMemory make_pinned(const std::string& who, size_t bytes);

int record(const Event& event, void* stream) noexcept;
// The stream waits for what the event was recorded behind; the host does not.
int wait(void* stream, const Event& event) noexcept;
// Whether the event is done. If it is not, because of a failure, *code is the failure's.
bool is_done(const Event& event, int* code) noexcept;
// Whether the stream captures a graph. So does the legacy stream while a stream captures that waits for it: CUDA would end that
// capture at any use of the legacy stream.
bool is_capturing(void* stream, int* code) noexcept;
// Throws Error if the stream captures a graph, which does not notice it: for calls that would end the capture, because they wait on
// the host or take memory. `why` is what the error says after "the current stream is capturing a graph".
void require_no_capture(const std::string& who, void* stream, const char* why = kNotInGraphs);
// The device's time between two events of `make_clock` that are done.
int elapsed(const Event& begin, const Event& end, double* seconds) noexcept;
// Waits on the host until the stream has done all that it has to do. Steps never call this.
int synchronize(void* stream) noexcept;
// The same for all streams of the current device.
int synchronize_device() noexcept;
// Makes `after` wait for all work that `before` has now, before it begins new work. Does nothing if they are one stream. Throws
// Error, also if one of them captures a graph and the other one does not: CUDA would end the capture, or draw the other one in.
void order(const std::string& who, void* before, void* after);

enum class Way { kToDevice, kToHost, kOnDevice };
int copy(Way way, void* to, const void* from, size_t bytes, void* stream) noexcept;

// Which threads a capture forbids to take memory and to ask for events: all, the one that captures, or none.
enum class CaptureMode { kGlobal, kThreadLocal, kRelaxed };
// Captures what `queue` queues on the stream, and makes a graph of it. `queue` returns a code. If one fails, the stream
// captures no longer. While this thread captures, others may allocate memory.
int capture(void* stream, const std::function<int()>& queue, Graph* graph,
            CaptureMode mode = CaptureMode::kThreadLocal);
int launch(const Graph& graph, void* stream) noexcept;

// Makes a device the thread's current one while this object lives.
class OnDevice {
 public:
  OnDevice(const std::string& who, int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = -1;
};

}  // namespace gradring::cuda
