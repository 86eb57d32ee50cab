#include "cuda/software/entry.h"

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "cuda/software/report.h"
#include "cuda/software/sanitizers.h"

namespace gradring::software {

namespace {
std::atomic<bool> lock{false};
// Owned, and never destroyed: at exit, objects of other files may still use it.
State* current = nullptr;
}  // namespace

void Lock::take() {
  while (lock.exchange(true, std::memory_order_acquire)) sched_yield();
}
void Lock::give() { lock.store(false, std::memory_order_release); }
Lock::Lock() {
  take();
  begin_unseen();
}
Lock::~Lock() {
  end_unseen();
  give();
}

HostThread& host_thread() {
  static thread_local HostThread thread;
  return thread;
}

namespace {

// The parts between the commas of an environment variable; none if it is not set.
std::vector<std::string> parts_of(const char* variable) {
  std::vector<std::string> parts;
  const char* text = std::getenv(variable);
  std::string rest = text ? text : "";
  while (!rest.empty()) {
    parts.push_back(rest.substr(0, rest.find(',')));
    rest = parts.back().size() < rest.size() ? rest.substr(parts.back().size() + 1) : "";
  }
  return parts;
}

}  // namespace

Options options_from_environment() {
  Options options;
  if (const char* text = std::getenv("GRADRING_CUDA_SCHEDULE")) {
    if (std::strcmp(text, "lazy") == 0) {
      options.schedule = Schedule::kLazy;
      options.order = BlockOrder::kReverse;
    } else if (std::strcmp(text, "eager") != 0) {
      options.schedule = Schedule::kSeeded;
      options.order = BlockOrder::kSeeded;
      options.seed = std::strtoull(text, nullptr, 10);
    }
  }
  if (const char* text = std::getenv("GRADRING_CUDA_MEMORY")) options.memory = std::strtoull(text, nullptr, 10);
  if (const char* text = std::getenv("GRADRING_CUDA_DEVICES")) options.devices = std::atoi(text);
  for (const std::string& one : parts_of("GRADRING_CUDA_FAIL")) {
    const size_t first = one.find(':'), second = one.rfind(':');
    if (first == std::string::npos || first == second)
      fail("GRADRING_CUDA_FAIL: %s is not call:number:code", one.c_str());
    options.faults.push_back(
        {one.substr(0, first), std::atoi(one.c_str() + first + 1), std::atoi(one.c_str() + second + 1)});
  }
  for (const std::string& one : parts_of("GRADRING_CUDA_TIMES")) {
    const size_t colon = one.find(':');
    if (colon == std::string::npos) fail("GRADRING_CUDA_TIMES: %s is not kernel:microseconds", one.c_str());
    options.microseconds[one.substr(0, colon)] = std::atoll(one.c_str() + colon + 1);
  }
  return options;
}

namespace {

void start(const Options& options) {
  delete std::exchange(current, new State);
  current->options = options;
  current->process = getpid();
  current->random.seed(options.seed);
  current->used.assign(static_cast<size_t>(std::max(options.devices, 1)), 0);
  for (int device = 0; device < std::max(options.devices, 1); ++device) {
    auto* legacy = new CUstream_st;
    legacy->device = device;
    legacy->legacy = true;
    current->streams.push_back(legacy);
  }
}

// Handles faults: freed memory and the pages around an allocation are not accessible.
void report_fault(int, siginfo_t* what, void*) {
  fail("illegal address %p: freed, or outside of every allocation", what->si_addr);
}

void watch_faults() {
  if (kAddressSanitizer) return;  // AddressSanitizer reports faults itself, in more detail
  struct sigaction action {};
  action.sa_sigaction = report_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
}

void report_at_exit() {
  if (current == nullptr || current->process != getpid() || !current->options.report_leaks) return;
  const std::string left = leaks();
  if (!left.empty()) fail("leaked at exit: %s", left.c_str());
}

}  // namespace

State& state() {
  if (current == nullptr) {
    start(options_from_environment());
    std::atexit(report_at_exit);
    watch_faults();
  }
  return *current;
}

void restart(const Options& options) {
  const Lock held;
  (void)state();
  // A new device comes after all that the former one has done, so its threads may take over identities.
  Identities former;
  former.put_all(&current->former);
  for (CUstream_st* each : current->streams) {
    if (each->tail) former.put_all(&each->tail->spare);
    delete each;
  }
  host_thread() = HostThread{};
  start(options);
  current->former.put_all(&former);
}

void forget_identities() {
  if (!kThreadSanitizer) return;
  const Lock held;
  State& device = state();
  device.former.clear();
  const auto clear = [](const OperationRef& last) {
    if (last) last->spare.clear();
  };
  for (const CUstream_st* each : device.streams) clear(each->tail);
  for (const CUevent_st* each : device.events) clear(each->at);
  for (const CUgraphExec_st* each : device.executables) clear(each->last);
  destroy_kept_identities();
}

std::map<std::string, int> calls() {
  const Lock held;
  return state().calls;
}

int library_call(const char* call) {
  const Lock held;
  const int number = ++state().calls[call];
  for (const Fault& each : state().options.faults) {
    if (each.call == call && each.number == number) return each.code;
  }
  return 0;
}

bool is_sticky(cudaError_t code) {
  switch (static_cast<int>(code)) {
    case 700:  // illegal address
    case 702:  // launch timeout
    case 710:  // assertion
    case 714:  // hardware stack error
    case 715:  // illegal instruction
    case 716:  // misaligned address
    case 717:  // invalid address space
    case 718:  // invalid program counter
    case 719:  // launch failure
    case 999:  // unknown
      return true;
    default: return false;
  }
}

cudaError_t note(cudaError_t code) {
  if (code != cudaSuccess) host_thread().last = code;
  return code;
}

void break_captures() {
  for (CUstream_st* each : state().streams) {
    if (each->capture) each->capture->broken = true;
  }
}

cudaError_t Entry::begin(const char* call, Manner manner) {
  if (host_thread().in_host_function) return note(cudaErrorNotPermitted);
  Lock::take();
  begin_unseen();
  inside_ = true;
  State& device = state();
  if (device.process != getpid()) return note(cudaErrorInitializationError);  // a forked child has no device
  const int number = ++device.calls[call];
  if (device.options.devices < 1) return note(cudaErrorNoDevice);
  if (device.sticky != cudaSuccess) return note(device.sticky);
  for (const Fault& each : device.options.faults) {
    if (each.call != call || each.number != number) continue;
    const auto code = static_cast<cudaError_t>(each.code);
    if (is_sticky(code)) device.sticky = code;
    return note(code);
  }
  if (manner == Manner::kForbiddenInCapture) {
    bool forbidden = false;
    for (CUstream_st* each : device.streams) {
      if (!each->capture || host_thread().mode == cudaStreamCaptureModeRelaxed) continue;
      const bool mine = each->capture->thread == std::this_thread::get_id();
      const cudaStreamCaptureMode mode = each->capture->mode;
      if ((mode == cudaStreamCaptureModeGlobal && host_thread().mode == cudaStreamCaptureModeGlobal) ||
          (mode != cudaStreamCaptureModeRelaxed && mine)) {
        each->capture->broken = true;
        forbidden = true;
      }
    }
    if (forbidden) return note(cudaErrorStreamCaptureUnsupported);
  }
  if (device.options.schedule == Schedule::kSeeded) run_some();
  return cudaSuccess;
}

Entry::Entry(const char* call, Manner manner) : error_(begin(call, manner)) {}

Entry::~Entry() {
  if (!inside_) return;
  end_unseen();
  Lock::give();
}

CUstream_st* stream_of(cudaStream_t handle) {
  State& device = state();
  HostThread& thread = host_thread();
  if (handle == nullptr || handle == cudaStreamLegacy) return device.streams[static_cast<size_t>(thread.device)];
  if (handle == cudaStreamPerThread) {
    CUstream_st*& own = thread.streams[thread.device];
    if (own == nullptr || std::find(device.streams.begin(), device.streams.end(), own) == device.streams.end()) {
      own = new CUstream_st;
      own->device = thread.device;
      own->per_thread = true;
      device.streams.push_back(own);
    }
    return own;
  }
  return std::find(device.streams.begin(), device.streams.end(), handle) == device.streams.end() ? nullptr : handle;
}

}  // namespace gradring::software
