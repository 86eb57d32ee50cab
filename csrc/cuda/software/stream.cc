// Streams, events and functions of the host.
#include <algorithm>

#include "cuda/software/entry.h"
#include "cuda/software/sanitizers.h"

using namespace gradring::software;

namespace {

cudaError_t create(cudaStream_t* stream, unsigned flags, int priority) {
  if (!stream || (flags != cudaStreamDefault && flags != cudaStreamNonBlocking)) return note(cudaErrorInvalidValue);
  auto* made = new CUstream_st;
  made->device = host_thread().device;
  made->blocking = flags == cudaStreamDefault;
  made->priority = priority;
  state().streams.push_back(made);
  *stream = made;
  return cudaSuccess;
}

bool exists(cudaEvent_t event) {
  const auto& all = state().events;
  return std::find(all.begin(), all.end(), event) != all.end();
}

}  // namespace

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  GRADRING_ENTER("cudaStreamCreate", Manner::kForbiddenInCapture);
  return create(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  GRADRING_ENTER("cudaStreamCreateWithFlags", Manner::kForbiddenInCapture);
  return create(stream, flags, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  GRADRING_ENTER("cudaStreamCreateWithPriority", Manner::kForbiddenInCapture);
  return create(stream, flags, priority);
}

// Queued work still runs, because each operation keeps alive what it needs.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  GRADRING_ENTER("cudaStreamDestroy");
  CUstream_st* stream = stream_of(handle);
  if (!stream || stream->legacy || handle == cudaStreamPerThread) return note(cudaErrorInvalidResourceHandle);
  if (stream->capture) stream->capture->broken = true;
  std::erase(state().streams, stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  GRADRING_ENTER("cudaStreamSynchronize");
  CUstream_st* stream = stream_of(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->capture->broken = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  std::vector<OperationRef> tails = {stream->tail};
  for (const CUstream_st* each : state().streams) {
    if (stream->legacy && each->blocking && each->device == stream->device) tails.push_back(each->tail);
  }
  for (const OperationRef& each : tails) wait_for(each);
  return note(state().sticky);
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  GRADRING_ENTER("cudaStreamQuery", Manner::kForbiddenInCapture);
  CUstream_st* stream = stream_of(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->capture->broken = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  if (stream->tail && !stream->tail->done) {
    let_run_for_query(stream->tail);
    return cudaErrorNotReady;
  }
  if (stream->tail) announce_after(&stream->tail->edge);
  return note(state().sticky);
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
  GRADRING_ENTER("cudaStreamGetFlags");
  const CUstream_st* stream = stream_of(handle);
  if (!stream || !flags) return note(cudaErrorInvalidResourceHandle);
  *flags = stream->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
  GRADRING_ENTER("cudaDeviceSynchronize");
  bool captures = false;
  for (CUstream_st* each : state().streams) {  // in any mode, of any thread
    if (!each->capture || each->device != host_thread().device) continue;
    each->capture->broken = captures = true;
  }
  if (captures) return note(cudaErrorStreamCaptureUnsupported);
  finish_all();
  for (const CUstream_st* each : state().streams) {
    if (each->tail) announce_after(&each->tail->edge);
  }
  return note(state().sticky);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  GRADRING_ENTER("cudaLaunchHostFunc");
  CUstream_st* stream = stream_of(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (!function) return note(cudaErrorInvalidValue);
  return submit(*stream, {"host function",
                          [function, data] {
                            host_thread().in_host_function = true;
                            function(data);
                            host_thread().in_host_function = false;
                          },
                          {},
                          true});
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  GRADRING_ENTER("cudaEventCreateWithFlags");
  if (!event || (flags & cudaEventInterprocess)) return note(cudaErrorInvalidValue);
  *event = new CUevent_st;
  (*event)->timing = !(flags & cudaEventDisableTiming);
  state().events.push_back(*event);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  GRADRING_ENTER("cudaEventDestroy");
  if (!exists(event)) return note(cudaErrorInvalidResourceHandle);
  std::erase(state().events, event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  GRADRING_ENTER("cudaEventRecord");
  CUstream_st* stream = stream_of(handle);
  if (!stream || !exists(event)) return note(cudaErrorInvalidResourceHandle);
  event->capture = stream->capture;
  event->capture_at = stream->capture_tail;
  if (stream->capture) return cudaSuccess;
  if (const cudaError_t code = submit(*stream, {"event", {}, {}, false})) return code;
  event->at = stream->tail;
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  GRADRING_ENTER("cudaEventQuery", Manner::kForbiddenInCapture);
  if (!exists(event)) return note(cudaErrorInvalidResourceHandle);
  if (event->capture) return note(cudaErrorCapturedEvent);
  if (!event->at) return cudaSuccess;
  if (!event->at->done) {
    let_run_for_query(event->at);
    return cudaErrorNotReady;
  }
  announce_after(&event->at->edge);
  return note(state().sticky);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  GRADRING_ENTER("cudaEventSynchronize");
  if (!exists(event)) return note(cudaErrorInvalidResourceHandle);
  if (event->capture) {
    event->capture->broken = true;
    return note(cudaErrorCapturedEvent);
  }
  wait_for(event->at);
  return note(state().sticky);
}

// By the device's clock, each operation takes one microsecond if the options do not say otherwise.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  GRADRING_ENTER("cudaEventElapsedTime");
  if (!exists(start) || !exists(end) || !start->timing || !end->timing) return note(cudaErrorInvalidResourceHandle);
  if (!start->at || !end->at) return note(cudaErrorInvalidResourceHandle);
  if (!start->at->done || !end->at->done) return cudaErrorNotReady;
  *milliseconds = 1e-3f * static_cast<float>(end->at->finished_at - start->at->finished_at);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  GRADRING_ENTER("cudaStreamWaitEvent");
  CUstream_st* stream = stream_of(handle);
  if (!stream || !exists(event)) return note(cudaErrorInvalidResourceHandle);
  if (event->capture) {
    if (stream->capture && !(stream->capture == event->capture)) {
      stream->capture->broken = event->capture->broken = true;
      return note(cudaErrorStreamCaptureMerge);
    }
    if (stream->legacy) {
      event->capture->broken = true;
      return note(cudaErrorStreamCaptureImplicit);
    }
    if (!stream->capture) {  // the stream joins the capture
      stream->capture = event->capture;
      stream->capture_tail.clear();
    }
    for (int node : event->capture_at) stream->capture_tail.push_back(node);
    return cudaSuccess;
  }
  if (stream->capture) {
    if (!event->at) return cudaSuccess;
    stream->capture->broken = true;
    return note(cudaErrorStreamCaptureIsolation);
  }
  return event->at ? submit(*stream, {"wait", {}, {}, false}, {event->at}) : cudaSuccess;
}

}  // extern "C"
