// Every call of the software runtime enters here: it holds the device's one lock, counts itself, and fails if a test
// says so.
//
// | variable | writer       | readers      | order            | why                                     |
// |----------|--------------|--------------|------------------|-----------------------------------------|
// | lock     | who takes it | who takes it | acquire, release | the state behind it changes hands whole |
#pragma once

#include "cuda/software/state.h"

namespace gradring::software {

class Lock {
 public:
  Lock();
  ~Lock();
  static void take();
  static void give();
};

// The state of a thread of the host.
struct HostThread {
  int device = 0;
  cudaError_t last = cudaSuccess;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool in_host_function = false;
  std::map<int, CUstream_st*> streams;  // the per-thread default streams, by device
};
HostThread& host_thread();

enum class Manner { kUsual, kForbiddenInCapture };

class Entry {
 public:
  explicit Entry(const char* call, Manner manner = Manner::kUsual);
  ~Entry();
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;
  explicit operator bool() const { return error_ != cudaSuccess; }
  cudaError_t error() const { return error_; }

 private:
  cudaError_t begin(const char* call, Manner manner);
  bool inside_ = false;  // declared before error_, whose initialization sets it
  cudaError_t error_;
};

cudaError_t note(cudaError_t code);           // sets the thread's last error
CUstream_st* stream_of(cudaStream_t handle);  // null if there is no such stream
void break_captures();

}  // namespace gradring::software

#define GRADRING_ENTER(...)                       \
  ::gradring::software::Entry entry(__VA_ARGS__); \
  if (entry) return entry.error()
