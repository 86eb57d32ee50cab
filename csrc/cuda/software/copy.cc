// Copies and fills. Pageable memory of the host is read at the call and written before the call returns; pinned memory is
// read and written when the copy runs.
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/software/entry.h"
#include "cuda/software/sanitizers.h"

using namespace gradring::software;

namespace {

enum class Place { kPageable, kPinned, kDevice, kRefused };

Place place_of(const void* address, size_t bytes) {
  if (const Allocation* found = allocation_of(address, bytes)) {
    if (found->freed) return Place::kRefused;
    return is_device_kind(*found) ? Place::kDevice : Place::kPinned;
  }
  // Refuse a range that overlaps an allocation without lying wholly within it.
  const char* begin = static_cast<const char*>(address);
  for (const auto& [base, each] : state().memory) {
    const auto at = reinterpret_cast<uintptr_t>(begin);
    if (at < base + each.bytes && base < at + bytes) return Place::kRefused;
  }
  return Place::kPageable;
}

bool fits(cudaMemcpyKind kind, Place to, Place from) {
  const bool to_device = to == Place::kDevice, from_device = from == Place::kDevice;
  switch (kind) {
    case cudaMemcpyHostToHost: return !to_device && !from_device;
    case cudaMemcpyHostToDevice: return to_device && !from_device;
    case cudaMemcpyDeviceToHost: return !to_device && from_device;
    case cudaMemcpyDeviceToDevice: return to_device && from_device;
    default: return kind == cudaMemcpyDefault;
  }
}

// Calls the C library's memcpy, which the sanitizers watch.
__attribute__((noinline)) void copy_bytes(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle, bool synchronous) {
  CUstream_st* stream = stream_of(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  const Place target = place_of(to, bytes), source = place_of(from, bytes);
  if (target == Place::kRefused || source == Place::kRefused) return note(cudaErrorInvalidValue);
  if (!fits(kind, target, source)) return note(cudaErrorInvalidMemcpyDirection);
  if (stream->capture && (synchronous || target == Place::kPageable || source == Place::kPageable)) {
    stream->capture->broken = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  std::shared_ptr<std::vector<char>> staged;
  if (source == Place::kPageable) {
    staged = std::make_shared<std::vector<char>>(bytes);
    end_unseen();  // the caller reads its own memory, which the race detector must see
    copy_bytes(staged->data(), from, bytes);
    begin_unseen();
  }
  if (target == Place::kPageable) {  // the copy goes to pinned memory, and the caller copies from there
    auto landing = std::make_shared<std::vector<char>>(bytes);
    if (cudaError_t code = submit(*stream, {"memcpy to pageable",
                                            [=] { copy_bytes(landing->data(), staged ? staged->data() : from, bytes); },
                                            {},
                                            false}))
      return code;
    wait_for(stream->tail);
    if (state().sticky != cudaSuccess) return note(state().sticky);
    end_unseen();
    copy_bytes(to, landing->data(), bytes);
    begin_unseen();
    return cudaSuccess;
  }
  const cudaError_t code =
      submit(*stream, {"memcpy", [=] { copy_bytes(to, staged ? staged->data() : from, bytes); }, {}, false});
  if (code != cudaSuccess || !synchronous) return code;
  wait_for(stream->tail);
  return state().sticky == cudaSuccess ? cudaSuccess : note(state().sticky);
}

cudaError_t fill(void* to, int value, size_t bytes, cudaStream_t handle, bool synchronous) {
  CUstream_st* stream = stream_of(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  const Place place = place_of(to, bytes);
  if (place != Place::kDevice && place != Place::kPinned) return note(cudaErrorInvalidValue);
  if (stream->capture && synchronous) {
    stream->capture->broken = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  return submit(*stream, {"memset", [=] { std::memset(to, value, bytes); }, {}, false});
}

}  // namespace

extern "C" {

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  GRADRING_ENTER("cudaMemcpyAsync");
  return copy(to, from, bytes, kind, stream, false);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  GRADRING_ENTER("cudaMemcpy", Manner::kForbiddenInCapture);
  return copy(to, from, bytes, kind, cudaStreamLegacy, true);
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  GRADRING_ENTER("cudaMemsetAsync");
  return fill(to, value, bytes, stream, false);
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  GRADRING_ENTER("cudaMemset", Manner::kForbiddenInCapture);
  return fill(to, value, bytes, cudaStreamLegacy, true);
}

}  // extern "C"
