#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/stream.h"
#include "runtime/status.h"

namespace gradring::cuda {

namespace {

cudaStream_t stream_of(void* handle) noexcept { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(const Event& event) noexcept { return static_cast<cudaEvent_t>(event.get()); }

// What a destructor cannot report is forgotten, so that it is not taken for the failure of a later call.
void forget(cudaError_t code) noexcept {
  if (code != cudaSuccess) (void)cudaGetLastError();
}

void check(const std::string& who, const char* call, cudaError_t code) {
  if (noted(call, code) != cudaSuccess) throw_failure(who, code);
}

}  // namespace

Relaxed::Relaxed() noexcept {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  const cudaError_t code = cudaThreadExchangeStreamCaptureMode(&mode);
  if (code == cudaSuccess) before_ = mode;
  forget(code);  // if a capture forbids the next call, that says so
}

Relaxed::~Relaxed() {
  if (before_ < 0) return;
  auto mode = static_cast<cudaStreamCaptureMode>(before_);
  forget(cudaThreadExchangeStreamCaptureMode(&mode));
}

void destroy_stream(void* stream) noexcept {
  const Relaxed relaxed;
  forget(cudaStreamDestroy(stream_of(stream)));
}
void destroy_event(void* event) noexcept {
  const Relaxed relaxed;
  forget(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
}
void destroy_graph(void* executable) noexcept {
  const Relaxed relaxed;
  forget(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable)));
}
void free_pinned(void* memory) noexcept {
  const Relaxed relaxed;
  forget(cudaFreeHost(memory));
}

Stream make_stream(const std::string& who, Priority priority) {
  constexpr int kGreatest = -100;  // CUDA takes the nearest priority that the device has
  cudaStream_t stream = nullptr;
  const Relaxed relaxed;
  check(who, "cudaStreamCreateWithPriority",
        cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority == Priority::kHigh ? kGreatest : 0));
  return Stream(stream);
}

Event make_event(const std::string& who) {
  cudaEvent_t event = nullptr;
  check(who, "cudaEventCreateWithFlags", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return Event(event);
}

Event make_clock(const std::string& who) {
  cudaEvent_t event = nullptr;
  check(who, "cudaEventCreateWithFlags", cudaEventCreateWithFlags(&event, cudaEventDefault));
  return Event(event);
}

PinnedMemory make_pinned(const std::string& who, size_t bytes) {
  void* memory = nullptr;
  const Relaxed relaxed;
  if (bytes > 0) check(who, "cudaHostAlloc", cudaHostAlloc(&memory, bytes, cudaHostAllocDefault));
  return PinnedMemory(memory);
}

int record(const Event& event, void* stream) noexcept {
  return noted("cudaEventRecord", cudaEventRecord(event_of(event), stream_of(stream)));
}

int wait(void* stream, const Event& event) noexcept {
  return noted("cudaStreamWaitEvent", cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
}

int elapsed(const Event& begin, const Event& end, double* seconds) noexcept {
  float milliseconds = 0;
  const cudaError_t code = cudaEventElapsedTime(&milliseconds, event_of(begin), event_of(end));
  *seconds = static_cast<double>(milliseconds) / 1e3;
  return noted("cudaEventElapsedTime", code);
}

bool is_done(const Event& event, int* code) noexcept {
  const Relaxed relaxed;
  const cudaError_t found = cudaEventQuery(event_of(event));
  if (found == cudaErrorNotReady) (void)cudaGetLastError();
  *code = found == cudaErrorNotReady ? 0 : noted("cudaEventQuery", found);
  return found == cudaSuccess;
}

bool is_capturing(void* stream, int* code) noexcept {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t found = cudaStreamIsCapturing(stream_of(stream), &status);
  if (found == cudaErrorStreamCaptureImplicit) {
    (void)cudaGetLastError();
    *code = 0;
    return true;
  }
  *code = noted("cudaStreamIsCapturing", found);
  return *code == 0 && status != cudaStreamCaptureStatusNone;
}

void require_no_capture(const std::string& who, void* stream, const char* why) {
  int code = 0;
  if (is_capturing(stream, &code)) {
    throw Error(Code::kUnavailable, "[" + who + "] the current stream is capturing a graph, " + why);
  }
  if (code != 0) throw_failure(who, code);
}

int synchronize(void* stream) noexcept {
  return noted("cudaStreamSynchronize", cudaStreamSynchronize(stream_of(stream)));
}

int synchronize_device() noexcept { return noted("cudaDeviceSynchronize", cudaDeviceSynchronize()); }

void order(const std::string& who, void* before, void* after) {
  const auto is_legacy = [](void* stream) { return stream == nullptr || stream == cudaStreamLegacy; };
  if (before == after || (is_legacy(before) && is_legacy(after))) return;
  int code = 0;
  const bool captures = is_capturing(before, &code);
  if (code == 0 && captures != is_capturing(after, &code) && code == 0) {
    throw Error(Code::kUnavailable,
                "[" + who + "] " + (captures ? "the stream that comes first" : "the stream that waits") +
                    " is capturing a graph and the other one is not, so an order between them would end the capture or "
                    "draw the other stream into it: order them before the capture begins, or after it has ended");
  }
  if (code != 0) throw_failure(who, code);
  const Event now = make_event(who);
  code = record(now, before);
  if (code == 0) code = wait(after, now);
  if (code != 0) throw_failure(who, code);
}

int copy(Way way, void* to, const void* from, size_t bytes, void* stream) noexcept {
  constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
  const cudaMemcpyKind kind = kKinds[static_cast<int>(way)];
  return noted("cudaMemcpyAsync", cudaMemcpyAsync(to, from, bytes, kind, stream_of(stream)));
}

int capture(void* stream, const std::function<int()>& queue, Graph* graph, CaptureMode mode) {
  constexpr cudaStreamCaptureMode kModes[] = {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                                              cudaStreamCaptureModeRelaxed};
  cudaError_t code =
      noted("cudaStreamBeginCapture", cudaStreamBeginCapture(stream_of(stream), kModes[static_cast<int>(mode)]));
  if (code != cudaSuccess) return code;
  const int queued = queue();
  const char* const failed = failed_call;
  cudaGraph_t made = nullptr;
  code = noted("cudaStreamEndCapture", cudaStreamEndCapture(stream_of(stream), &made));
  if (code != cudaSuccess) {  // a stream that still captured would forbid this thread to allocate memory
    cudaGraph_t rest = nullptr;
    forget(cudaStreamEndCapture(stream_of(stream), &rest));
    if (rest) forget(cudaGraphDestroy(rest));
  }
  if (queued != 0) {
    forget(code);
    if (made) forget(cudaGraphDestroy(made));
    failed_call = failed;
    return queued;
  }
  if (code != cudaSuccess) return code;
  cudaGraphExec_t executable = nullptr;
  code = noted("cudaGraphInstantiate", cudaGraphInstantiate(&executable, made, 0));
  forget(cudaGraphDestroy(made));
  if (code == cudaSuccess) *graph = Graph(executable);
  return code;
}

int launch(const Graph& graph, void* stream) noexcept {
  return noted("cudaGraphLaunch", cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.get()), stream_of(stream)));
}

OnDevice::OnDevice(const std::string& who, int device) {
  int now = 0;
  check(who, "cudaGetDevice", cudaGetDevice(&now));
  if (now == device) return;
  check(who, "cudaSetDevice", cudaSetDevice(device));
  before_ = now;
}

OnDevice::~OnDevice() {
  if (before_ >= 0) forget(cudaSetDevice(before_));
}

}  // namespace gradring::cuda
