// Capture, graphs, and kernel launches, which run or become nodes of a graph.
#include <algorithm>

#include "cuda/software/block.h"
#include "cuda/software/entry.h"
#include "cuda/software/launch.h"
#include "cuda/software/sanitizers.h"

using namespace gradring::software;

namespace gradring::software {

cudaError_t launch(Launch launch, cudaStream_t handle) {
  GRADRING_ENTER("cudaLaunchKernel");
  CUstream_st* stream = stream_of(handle);
  // Copies and waits take streams of any device, kernels those of the thread's current one.
  if (!stream || stream->device != host_thread().device) return note(cudaErrorInvalidResourceHandle);
  const dim3 b = launch.blocks, t = launch.threads;
  const uint64_t threads = uint64_t{t.x} * t.y * t.z;
  if (b.x == 0 || b.y == 0 || b.z == 0 || threads == 0 || threads > 1024 || t.x > 1024 || t.y > 1024 || t.z > 64 ||
      b.x > 0x7fffffffu || b.y > 65535 || b.z > 65535) {
    return note(cudaErrorInvalidConfiguration);
  }
  const auto allowed = state().dynamic_shared.find(launch.kernel);
  const size_t limit =
      allowed == state().dynamic_shared.end() ? kStaticSharedLimit : static_cast<size_t>(allowed->second);
  if (launch.dynamic_shared > limit) return note(cudaErrorInvalidValue);
  Work work;
  work.name = launch.name;
  work.launch = [launch] { return launch; };
  return submit(*stream, std::move(work));
}

}  // namespace gradring::software

extern "C" {

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  GRADRING_ENTER("cudaFuncSetAttribute");
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > kSharedLimit) return note(cudaErrorInvalidValue);
  state().dynamic_shared[function] = value;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  GRADRING_ENTER("cudaThreadExchangeStreamCaptureMode");
  if (!mode) return note(cudaErrorInvalidValue);
  std::swap(*mode, host_thread().mode);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  GRADRING_ENTER("cudaStreamBeginCapture");
  CUstream_st* stream = stream_of(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (stream->legacy) return note(cudaErrorStreamCaptureUnsupported);
  if (stream->capture) return note(cudaErrorIllegalState);
  stream->capture = CaptureRef(new Capture);
  stream->capture->origin = stream;
  stream->capture->mode = mode;
  stream->capture->thread = std::this_thread::get_id();
  stream->capture_tail.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  GRADRING_ENTER("cudaStreamIsCapturing");
  const CUstream_st* stream = stream_of(handle);
  if (!stream || !status) return note(cudaErrorInvalidResourceHandle);
  // The legacy stream waits for blocking streams. This ends no capture of theirs, but any use of the legacy stream would.
  const auto& all = state().streams;
  if (stream->legacy && std::any_of(all.begin(), all.end(), [stream](const CUstream_st* each) {
        return each->capture && each->blocking && each->device == stream->device;
      })) {
    return note(cudaErrorStreamCaptureImplicit);
  }
  *status = !stream->capture          ? cudaStreamCaptureStatusNone
            : stream->capture->broken ? cudaStreamCaptureStatusInvalidated
                                      : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  GRADRING_ENTER("cudaStreamEndCapture");
  CUstream_st* stream = stream_of(handle);
  if (!stream || !graph) return note(cudaErrorInvalidResourceHandle);
  *graph = nullptr;
  const CaptureRef capture = stream->capture;
  if (!capture) return note(cudaErrorIllegalState);
  if (capture->origin != stream) return note(cudaErrorStreamCaptureUnmatched);
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    return note(cudaErrorStreamCaptureWrongThread);
  }
  // The last nodes of all other streams must be predecessors of this stream's last node.
  std::vector<bool> reached(capture->nodes.size());
  std::vector<int> left = stream->capture_tail;
  while (!left.empty()) {
    const auto node = static_cast<size_t>(left.back());
    left.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    left.insert(left.end(), capture->nodes[node].after.begin(), capture->nodes[node].after.end());
  }
  const bool joined = std::all_of(reached.begin(), reached.end(), [](bool each) { return each; });
  for (CUstream_st* each : state().streams) {
    if (!(each->capture == capture)) continue;
    each->capture = {};
    each->capture_tail.clear();
  }
  if (capture->broken) return note(cudaErrorStreamCaptureInvalidated);
  if (!joined) return note(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{capture->nodes};
  state().graphs.push_back(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  GRADRING_ENTER("cudaGraphGetNodes");
  if (!graph || !count || nodes) return note(cudaErrorInvalidValue);  // only the number of nodes can be queried
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  GRADRING_ENTER("cudaGraphInstantiate");
  if (!executable || !graph) return note(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st{graph->nodes, {}};
  state().executables.push_back(*executable);
  return cudaSuccess;
}

// An executable graph runs after the stream's work and after its own last run.
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  GRADRING_ENTER("cudaGraphLaunch");
  CUstream_st* stream = stream_of(handle);
  if (!stream || !executable) return note(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->capture->broken = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  if (const cudaError_t code = submit(*stream, {"graph begins", {}, {}, false}, {executable->last})) return code;
  const OperationRef begin = stream->tail;
  std::vector<OperationRef> all;
  for (const Node& each : executable->nodes) {
    std::vector<OperationRef> after;
    for (int node : each.after) after.push_back(all[static_cast<size_t>(node)]);
    if (after.empty()) after.push_back(begin);
    all.push_back(queue(*stream, each.work, std::move(after)));
  }
  all.push_back(begin);
  stream->tail = executable->last = queue(*stream, {"graph ends", {}, {}, false}, std::move(all));
  let_run();
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  GRADRING_ENTER("cudaGraphDestroy");
  if (std::erase(state().graphs, graph) == 0) return note(cudaErrorInvalidValue);
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  GRADRING_ENTER("cudaGraphExecDestroy");
  if (std::erase(state().executables, executable) == 0) return note(cudaErrorInvalidValue);
  delete executable;
  return cudaSuccess;
}

}  // extern "C"
