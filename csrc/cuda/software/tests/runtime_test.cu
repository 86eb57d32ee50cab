// Tests of what the software runtime promises as CUDA does: orders of streams, capture from several threads, errors that stay,
// memory of other processes, faults that a test asks for, and the report of leaks.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cuda/device.h"
#include "cuda/software/tests/device_array.h"

using namespace gradring::software;
using gradring::testing::in_every_schedule;

namespace {

constexpr int kCount = 200;
constexpr size_t kBytes = kCount * sizeof(int);

__global__ void set(int* to, int value) {
  const int64_t i = gradring::device::thread_in_grid();
  if (i < kCount) to[i] = value;
}
__global__ void add(const int* from, int* to) {
  const int64_t i = gradring::device::thread_in_grid();
  if (i < kCount) to[i] += from[i];
}

int queue_set(int* to, int value, cudaStream_t stream) { return LAUNCH(set, dim3(2), dim3(128), 0, stream, to, value); }
int queue_add(const int* from, int* to, cudaStream_t stream) {
  return LAUNCH(add, dim3(2), dim3(128), 0, stream, from, to);
}

int* new_array() {
  int* array = nullptr;
  REQUIRE(cudaMalloc(reinterpret_cast<void**>(&array), kBytes) == cudaSuccess);
  REQUIRE(cudaMemset(array, 0, kBytes) == cudaSuccess);
  return array;
}
bool holds(const int* array, int value) {
  std::vector<int> got(kCount);
  if (cudaMemcpy(got.data(), array, kBytes, cudaMemcpyDeviceToHost) != cudaSuccess) return false;
  for (const int each : got)
    if (each != value) return false;
  return true;
}

std::string error_name(cudaError_t code) { return cudaGetErrorName(code); }

// In a process of its own, whose end comes by exit(), as a program's does.
Outcome run_to_exit(const Options& options, const std::function<void()>& program) {
  return run_forked([&]() -> int {
    restart(options);
    program();
    std::exit(0);
  });
}

}  // namespace

TEST_CASE("the legacy stream and blocking streams wait for each other, and so does a thread's own stream") {
  in_every_schedule([](const Options&) {
    int *a = new_array(), *b = new_array();
    cudaStream_t blocking = nullptr;
    REQUIRE(cudaStreamCreate(&blocking) == cudaSuccess);
    for (cudaStream_t other : {blocking, cudaStreamPerThread}) {
      REQUIRE(cudaMemset(b, 0, kBytes) == cudaSuccess);
      REQUIRE(queue_set(a, 3, nullptr) == 0);
      REQUIRE(queue_add(a, b, other) == 0);
      REQUIRE(queue_set(a, 5, cudaStreamLegacy) == 0);
      REQUIRE(queue_add(a, b, other) == 0);
      REQUIRE(cudaStreamSynchronize(other) == cudaSuccess);
      CHECK(holds(b, 8));
    }
    CHECK(cudaStreamDestroy(cudaStreamPerThread) == cudaErrorInvalidResourceHandle);
    REQUIRE(cudaStreamDestroy(blocking) == cudaSuccess);
    CHECK(cudaStreamSynchronize(blocking) == cudaErrorInvalidResourceHandle);
    REQUIRE(cudaFree(a) == cudaSuccess);
    REQUIRE(cudaFree(b) == cudaSuccess);
  });
}

TEST_CASE("each thread of the host has a stream and a last error of its own") {
  Options lazy;
  lazy.schedule = Schedule::kLazy;
  restart(lazy);
  int* a = new_array();
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  REQUIRE(queue_set(a, 3, cudaStreamPerThread) == 0);
  CHECK(cudaSetDevice(9) == cudaErrorInvalidDevice);
  cudaError_t other_end = cudaErrorUnknown, other_last = cudaErrorUnknown;
  std::thread([&] {
    other_end = cudaStreamSynchronize(cudaStreamPerThread);  // this thread has queued nothing, so nothing runs
    other_last = cudaGetLastError();
  }).join();
  CHECK(other_end == cudaSuccess);
  CHECK(other_last == cudaSuccess);
  CHECK(cudaStreamQuery(cudaStreamPerThread) == cudaErrorNotReady);
  REQUIRE(cudaStreamSynchronize(cudaStreamPerThread) == cudaSuccess);
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(holds(a, 3));
  REQUIRE(cudaFree(a) == cudaSuccess);
  CHECK(leaks() == "");
}

TEST_CASE("work that another thread queues while one waits keeps its order") {
  in_every_schedule([](const Options&) {
    int *a = new_array(), *b = new_array(), *c = new_array();
    cudaStream_t shared = nullptr, other = nullptr;
    cudaEvent_t event = nullptr;
    for (cudaStream_t* stream : {&shared, &other}) {
      REQUIRE(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking) == cudaSuccess);
    }
    REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    struct Steps {
      std::atomic<bool> on_host{false}, queued{false};
    } steps;
    const auto wait = [](const std::atomic<bool>& step) {
      while (!step.load(std::memory_order_acquire)) std::this_thread::yield();
    };
    bool good = true;
    std::thread second([&] {
      wait(steps.on_host);
      good = queue_set(b, 7, other) == 0 && cudaEventRecord(event, other) == cudaSuccess &&
             cudaStreamWaitEvent(shared, event, 0) == cudaSuccess && queue_add(b, a, shared) == 0;
      steps.queued.store(true, std::memory_order_release);
    });
    // In this function the device runs nothing else, so the second thread queues between the parts of what the first one waits for.
    const auto hold = [](void* data) {
      auto& told = *static_cast<Steps*>(data);
      told.on_host.store(true, std::memory_order_release);
      while (!told.queued.load(std::memory_order_acquire)) std::this_thread::yield();
    };
    REQUIRE(cudaLaunchHostFunc(shared, hold, &steps) == cudaSuccess);
    REQUIRE(queue_set(c, 1, shared) == 0);
    REQUIRE(cudaStreamSynchronize(shared) == cudaSuccess);
    second.join();
    CHECK(good);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(holds(a, 7));
    CHECK(holds(c, 1));
    REQUIRE(cudaEventDestroy(event) == cudaSuccess);
    for (cudaStream_t stream : {shared, other}) REQUIRE(cudaStreamDestroy(stream) == cudaSuccess);
    for (int* array : {a, b, c}) REQUIRE(cudaFree(array) == cudaSuccess);
  });
}

TEST_CASE("a graph runs its captured work in its order, again and again, and two runs of one graph do not overlap") {
  in_every_schedule([](const Options&) {
    int *a = new_array(), *b = new_array();
    cudaStream_t first = nullptr, second = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t runs = nullptr;
    REQUIRE(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    REQUIRE(queue_set(a, 2, first) == 0);
    REQUIRE(queue_add(a, b, first) == 0);
    REQUIRE(cudaStreamEndCapture(first, &graph) == cudaSuccess);
    size_t nodes = 0;
    REQUIRE(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
    CHECK(nodes == 2);
    REQUIRE(cudaGraphInstantiate(&runs, graph, 0) == cudaSuccess);
    REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
    for (cudaStream_t each : {first, second, first}) REQUIRE(cudaGraphLaunch(runs, each) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(first) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(second) == cudaSuccess);
    CHECK(holds(b, 6));
    REQUIRE(cudaGraphExecDestroy(runs) == cudaSuccess);
    for (cudaStream_t each : {first, second}) REQUIRE(cudaStreamDestroy(each) == cudaSuccess);
    for (int* each : {a, b}) REQUIRE(cudaFree(each) == cudaSuccess);
  });
}

TEST_CASE("which calls a capture forbids to which thread depends on its mode") {
  // Whether an allocation works while a stream captures in this mode: in the thread that captures, and in another one.
  struct Case {
    cudaStreamCaptureMode mode;
    bool here, there;
  };
  for (const Case& each :
       {Case{cudaStreamCaptureModeGlobal, false, false}, Case{cudaStreamCaptureModeThreadLocal, false, true},
        Case{cudaStreamCaptureModeRelaxed, true, true}}) {
    for (const bool here : {true, false}) {
      restart({});
      cudaStream_t stream = nullptr;
      REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
      REQUIRE(cudaStreamBeginCapture(stream, each.mode) == cudaSuccess);
      CHECK(cudaStreamBeginCapture(stream, each.mode) == cudaErrorIllegalState);
      void* memory = nullptr;
      cudaError_t code = cudaSuccess;
      const auto allocate = [&] { code = cudaMalloc(&memory, 64); };
      here ? allocate() : std::thread(allocate).join();
      const bool allowed = here ? each.here : each.there;
      INFO("mode ", int{each.mode}, here ? " here" : " in another thread");
      CHECK(code == (allowed ? cudaSuccess : cudaErrorStreamCaptureUnsupported));
      cudaStreamCaptureStatus status{};
      REQUIRE(cudaStreamIsCapturing(stream, &status) == cudaSuccess);
      CHECK(status == (allowed ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusInvalidated));
      cudaGraph_t graph = nullptr;
      CHECK(cudaStreamEndCapture(stream, &graph) == (allowed ? cudaSuccess : cudaErrorStreamCaptureInvalidated));
      if (graph) CHECK(cudaGraphDestroy(graph) == cudaSuccess);
      if (memory) CHECK(cudaFree(memory) == cudaSuccess);
      CHECK(cudaStreamDestroy(stream) == cudaSuccess);
      CHECK(leaks() == "");
    }
  }
}

TEST_CASE("a query of an event is forbidden as an allocation is, and to wait for the device in every mode") {
  for (const auto mode :
       {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed}) {
    for (const bool heeded : {false, true}) {  // whether the thread says that it heeds captures
      for (const bool whole : {false, true}) {
        restart({});
        cudaStream_t stream = nullptr;
        cudaEvent_t event = nullptr;
        cudaGraph_t graph = nullptr;
        REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
        REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
        REQUIRE(cudaStreamBeginCapture(stream, mode) == cudaSuccess);
        cudaStreamCaptureMode own = heeded ? cudaStreamCaptureModeRelaxed : cudaStreamCaptureModeGlobal;
        REQUIRE(cudaThreadExchangeStreamCaptureMode(&own) == cudaSuccess);
        const bool allowed = !whole && (heeded || mode == cudaStreamCaptureModeRelaxed);
        const cudaError_t code = whole ? cudaDeviceSynchronize() : cudaEventQuery(event);
        CHECK(code == (allowed ? cudaSuccess : cudaErrorStreamCaptureUnsupported));
        CHECK(cudaStreamEndCapture(stream, &graph) == (allowed ? cudaSuccess : cudaErrorStreamCaptureInvalidated));
        REQUIRE(cudaThreadExchangeStreamCaptureMode(&own) == cudaSuccess);
        if (graph != nullptr) REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
        REQUIRE(cudaEventDestroy(event) == cudaSuccess);
        REQUIRE(cudaStreamDestroy(stream) == cudaSuccess);
        CHECK(leaks() == "");
      }
    }
  }
}

TEST_CASE("the legacy stream says that a stream captures which waits for it, and its use ends that capture") {
  for (const unsigned flags : {cudaStreamNonBlocking, cudaStreamDefault}) {
    restart({});
    const bool waits = flags == cudaStreamDefault;
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, flags) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    for (const bool used : {false, true}) {
      REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
      cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
      CHECK(cudaStreamIsCapturing(nullptr, &status) == (waits ? cudaErrorStreamCaptureImplicit : cudaSuccess));
      CHECK(status == cudaStreamCaptureStatusNone);
      if (used) CHECK(cudaEventRecord(event, nullptr) == (waits ? cudaErrorStreamCaptureImplicit : cudaSuccess));
      CHECK(cudaStreamEndCapture(stream, &graph) == (used && waits ? cudaErrorStreamCaptureInvalidated : cudaSuccess));
      if (graph != nullptr) REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
    }
    REQUIRE(cudaEventDestroy(event) == cudaSuccess);
    REQUIRE(cudaStreamDestroy(stream) == cudaSuccess);
    CHECK(leaks() == "");
  }
}

TEST_CASE("a capture is refused on the legacy stream, in another thread's hands, and across two captures") {
  restart({});
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed) == cudaErrorStreamCaptureUnsupported);
  cudaStream_t a = nullptr, b = nullptr;
  cudaEvent_t event = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  CHECK(cudaStreamEndCapture(a, &graph) == cudaErrorIllegalState);
  REQUIRE(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  cudaError_t elsewhere = cudaSuccess;
  std::thread([&] { elsewhere = cudaStreamEndCapture(a, &graph); }).join();
  CHECK(elsewhere == cudaErrorStreamCaptureWrongThread);
  REQUIRE(cudaStreamBeginCapture(b, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  REQUIRE(cudaEventRecord(event, a) == cudaSuccess);
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;  // in which queries of other events are allowed
  REQUIRE(cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaErrorCapturedEvent);
  REQUIRE(cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(b, event, 0) == cudaErrorStreamCaptureMerge);
  for (cudaStream_t each : {a, b}) CHECK(cudaStreamEndCapture(each, &graph) == cudaErrorStreamCaptureInvalidated);
  // An event of work outside of the capture cannot be waited for inside of it.
  REQUIRE(cudaEventRecord(event, b) == cudaSuccess);
  REQUIRE(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(a, event, 0) == cudaErrorStreamCaptureIsolation);
  CHECK(cudaStreamEndCapture(a, &graph) == cudaErrorStreamCaptureInvalidated);
  REQUIRE(cudaEventDestroy(event) == cudaSuccess);
  for (cudaStream_t each : {a, b}) REQUIRE(cudaStreamDestroy(each) == cudaSuccess);
  CHECK(leaks() == "");
}

TEST_CASE("an event's time is that of the work before it, and is not known before its end") {
  Options options;
  options.schedule = Schedule::kLazy;
  options.microseconds = {{"set", 2500}};
  restart(options);
  int* a = new_array();
  cudaEvent_t begin = nullptr, end = nullptr;
  REQUIRE(cudaEventCreate(&begin) == cudaSuccess);
  REQUIRE(cudaEventCreate(&end) == cudaSuccess);
  REQUIRE(cudaEventRecord(begin, nullptr) == cudaSuccess);
  REQUIRE(queue_set(a, 1, nullptr) == 0);
  REQUIRE(cudaEventRecord(end, nullptr) == cudaSuccess);
  float milliseconds = 0;
  CHECK(cudaEventElapsedTime(&milliseconds, begin, end) == cudaErrorNotReady);
  REQUIRE(cudaEventSynchronize(end) == cudaSuccess);
  REQUIRE(cudaEventElapsedTime(&milliseconds, begin, end) == cudaSuccess);
  CHECK(milliseconds > 2.5f);
  CHECK(milliseconds < 2.6f);
  for (cudaEvent_t each : {begin, end}) REQUIRE(cudaEventDestroy(each) == cudaSuccess);
  REQUIRE(cudaFree(a) == cudaSuccess);
  CHECK(leaks() == "");
}

TEST_CASE("memory of another process is opened, written and closed; handles that are none are refused") {
  for (const Options& options : every_schedule()) {
    INFO(name(options));
    restart(options);
    int* a = new_array();
    REQUIRE(queue_set(a, 3, nullptr) == 0);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    cudaIpcMemHandle_t handle{}, none{};
    REQUIRE(cudaIpcGetMemHandle(&handle, a + 5) == cudaSuccess);  // stands for the whole allocation
    void* mine = nullptr;
    CHECK(cudaIpcOpenMemHandle(&mine, handle, cudaIpcMemLazyEnablePeerAccess) == cudaErrorInvalidResourceHandle);
    CHECK(cudaIpcOpenMemHandle(&mine, none, cudaIpcMemLazyEnablePeerAccess) == cudaErrorInvalidValue);
    CHECK(cudaIpcGetMemHandle(&none, &none) == cudaErrorInvalidValue);
    const Outcome outcome = run_apart(options, [&]() -> int {
      int* theirs = nullptr;
      OK(cudaIpcOpenMemHandle(reinterpret_cast<void**>(&theirs), handle, cudaIpcMemLazyEnablePeerAccess));
      if (!holds(theirs, 3)) return 2;
      if (cudaFree(theirs) != cudaErrorInvalidValue) return 3;  // it belongs to the other process
      cudaIpcMemHandle_t again;
      if (cudaIpcGetMemHandle(&again, theirs) != cudaErrorInvalidValue) return 4;
      OK(static_cast<cudaError_t>(queue_set(theirs, 4, nullptr)));
      OK(cudaDeviceSynchronize());
      if (leaks() != "1 imported allocations") return 5;
      OK(cudaIpcCloseMemHandle(theirs));
      return cudaIpcCloseMemHandle(theirs) == cudaErrorInvalidValue ? 0 : 6;
    });
    INFO(outcome.said);
    CHECK(outcome.status == 0);
    CHECK(holds(a, 4));
    REQUIRE(cudaFree(a) == cudaSuccess);
    const Outcome late = run_apart(options, [&]() -> int {
      void* theirs = nullptr;
      return cudaIpcOpenMemHandle(&theirs, handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess && !theirs ? 0 : 1;
    });
    CHECK(late.status == 0);
    CHECK(leaks() == "");
  }
}

TEST_CASE("an error of a kernel stays, and every later call returns it; another error does not stay") {
  Options options;
  options.faults = {{"run", 3, cudaErrorIllegalAddress}, {"cudaMalloc", 2, cudaErrorMemoryAllocation}};
  restart(options);
  int* a = new_array();  // a fill is operation 1
  void* more = nullptr;
  CHECK(cudaMalloc(&more, 64) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  REQUIRE(queue_set(a, 1, nullptr) == 0);
  (void)queue_set(a, 2, nullptr);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK(cudaMalloc(&more, 64) == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  restart({});
  CHECK(cudaMalloc(&more, 64) == cudaSuccess);
  CHECK(cudaFree(more) == cudaSuccess);
}

TEST_CASE("every error code that the software device returns has a name and a text") {
  restart({});
  for (const int code : {0,   1,   2,   3,   9,   21,  35,  100, 101, 400, 401, 600, 700, 701,
                         712, 713, 719, 800, 801, 900, 901, 902, 903, 904, 905, 906, 907, 908}) {
    INFO(code);
    const auto error = static_cast<cudaError_t>(code);
    CHECK(error_name(error).rfind(code == 0 ? "cudaSuccess" : "cudaError", 0) == 0);
    CHECK(std::string(cudaGetErrorString(error)) != "unrecognized error code");
  }
  CHECK(error_name(static_cast<cudaError_t>(4242)) == "unrecognized error code");
}

TEST_CASE("a kernel is launched on a stream of the current device alone, and a copy on any") {
  Options options;
  options.devices = 2;
  restart(options);
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  cudaStream_t second = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  int* const a = new_array();
  CHECK(queue_set(a, 3, second) == cudaErrorInvalidResourceHandle);
  CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle);
  CHECK(holds(a, 0));
  CHECK(cudaMemsetAsync(a, 0xff, kBytes, second) == cudaSuccess);
  CHECK(cudaStreamSynchronize(second) == cudaSuccess);
  CHECK(holds(a, -1));
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  CHECK(queue_set(a, 4, second) == cudaSuccess);
  CHECK(cudaStreamSynchronize(second) == cudaSuccess);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  CHECK(holds(a, 4));
  CHECK(cudaFree(a) == cudaSuccess);
  CHECK(cudaStreamDestroy(second) == cudaSuccess);
  restart({});
}

TEST_CASE("the environment chooses schedule, faults by name, number and code, memory and devices") {
  const Outcome outcome = run_forked([]() -> int {
    setenv("GRADRING_CUDA_SCHEDULE", "7", 1);
    setenv("GRADRING_CUDA_FAIL", "cudaMalloc:2:2,cudaSetDevice:1:101", 1);
    setenv("GRADRING_CUDA_MEMORY", "8192", 1);
    setenv("GRADRING_CUDA_DEVICES", "3", 1);
    setenv("GRADRING_CUDA_TIMES", "f<T>:5,g:7", 1);
    const Options options = options_from_environment();
    if (options.schedule != Schedule::kSeeded || options.seed != 7 || options.order != BlockOrder::kSeeded) return 1;
    if (options.microseconds != std::map<std::string, int64_t>{{"f<T>", 5}, {"g", 7}}) return 7;
    restart(options);
    int count = 0;
    OK(cudaGetDeviceCount(&count));
    if (count != 3) return 2;
    void *a = nullptr, *b = nullptr;
    OK(cudaMalloc(&a, 4096));
    if (cudaMalloc(&b, 16) != cudaErrorMemoryAllocation || b) return 3;
    OK(cudaMalloc(&b, 4096));
    size_t available = 1, total = 0;
    OK(cudaMemGetInfo(&available, &total));
    void* c = nullptr;
    if (available != 0 || total != 8192 || cudaMalloc(&c, 1) != cudaErrorMemoryAllocation) return 4;
    if (cudaSetDevice(1) != cudaErrorInvalidDevice || cudaSetDevice(1) != cudaSuccess) return 5;
    OK(cudaFree(a));
    OK(cudaFree(b));
    setenv("GRADRING_CUDA_SCHEDULE", "lazy", 1);
    return options_from_environment().schedule == Schedule::kLazy && leaks().empty() ? 0 : 6;
  });
  INFO(outcome.said);
  CHECK(outcome.status == 0);
  const Outcome wrong = run_forked([]() -> int {
    setenv("GRADRING_CUDA_FAIL", "cudaMalloc:2", 1);
    (void)options_from_environment();
    return 0;
  });
  CHECK(wrong.status != 0);
  CHECK(wrong.said.find("cudaMalloc:2 is not call:number:code") != std::string::npos);
  const Outcome timeless = run_forked([]() -> int {
    setenv("GRADRING_CUDA_TIMES", "f", 1);
    (void)options_from_environment();
    return 0;
  });
  CHECK(timeless.status != 0);
  CHECK(timeless.said.find("f is not kernel:microseconds") != std::string::npos);
}

TEST_CASE("what is left when a process ends is reported, and nothing where nothing is left") {
  const Outcome clean = run_to_exit({}, [] {
    void* memory = nullptr;
    (void)cudaMalloc(&memory, 64);
    (void)cudaFree(memory);
  });
  INFO(clean.said);
  CHECK(clean.status == 0);
  const auto leave = [] {
    void *memory = nullptr, *pinned = nullptr;
    cudaStream_t stream = nullptr;
    (void)cudaMalloc(&memory, 64);
    (void)cudaMallocHost(&pinned, 64);
    (void)cudaStreamCreate(&stream);
  };
  const Outcome leaky = run_to_exit({}, leave);
  CHECK(leaky.status != 0);
  CHECK(leaky.said.find("leaked at exit: 1 device allocations of 64 bytes, 1 pinned allocations, 1 streams") !=
        std::string::npos);
  Options silent;
  silent.report_leaks = false;
  CHECK(run_to_exit(silent, leave).status == 0);
}
