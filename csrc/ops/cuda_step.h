// The scalars of an optimizer's step on a CUDA device: numbers of the call, or fields of the step record in device memory, which
// are read when the kernel runs, so that one captured graph serves all steps.
#pragma once

#include "ops/cuda_call.h"

namespace gradring {

struct StepScalars {
  const double* lr = nullptr;  // null: lr_value; the same below
  const int64_t* number = nullptr;
  const double* clip = nullptr;
  const double* weight = nullptr;
  double lr_value = 0, scale_value = 1;
  int64_t number_value = 1;
  int64_t which = 0;  // an index into the record's rates; 0 means lr

  // The same as learning_rate() in learning_rate.h.
  __device__ double rate(const StepRecord* step) const {
    if (which > 0 && which < step->rate_count) return step->rates[which];
    return lr ? *lr : lr_value;
  }
  __device__ int64_t count() const { return number ? *number : number_value; }
  // The same as gradient_scale() in gradient_scale.h.
  __device__ double scale() const {
    const double total = weight ? *weight : 1.0;
    return total == 0 ? 0.0 : scale_value * (clip ? *clip : 1.0) / total;
  }
};

inline StepScalars step_scalars(const OpCall& call) noexcept {
  StepScalars s;
  s.lr = operand(call, "lr").as<const double>(), s.number = operand(call, "number").as<const int64_t>();
  s.clip = operand(call, "clip").as<const double>(), s.weight = operand(call, "weight").as<const double>();
  s.lr_value = real(call, "lr"), s.scale_value = real(call, "grad_scale", 1);
  s.number_value = integer(call, "step"), s.which = integer(call, "rate");
  return s;
}

// The scalars of a launch over many arrays.
inline StepScalars step_scalars(const CudaSpans& spans) noexcept {
  StepScalars s;
  if (spans.by_record) {
    s.lr = &spans.step->learning_rate, s.number = &spans.step->number;
    s.clip = &spans.step->clip, s.weight = &spans.step->total_weight;
    s.which = spans.rate;
  } else {
    s.lr_value = spans.lr, s.scale_value = spans.scale;
  }
  return s;
}

// The gradient of an optimizer's call, which is named `grad` in an eager call.
inline const Tensor& gradient_of(const OpCall& call) noexcept {
  const Tensor& grad = operand(call, "grad");
  return grad ? grad : operand(call, "gradient");
}

// How the formulas that CPUs and GPUs share load and store one element.
struct LoadOne {
  template <class T>
  __device__ __forceinline__ T operator()(const T* from) const {
    return *from;
  }
};
struct StoreOne {
  template <class T>
  __device__ __forceinline__ void operator()(T* to, T value) const {
    *to = value;
  }
};

// A kernel over n elements of a flat arena, with the record of the call's step before its other arguments.
template <class T, class... P, class... A>
int launch_flat(const OpCall& call, const CudaQueue& queue, int64_t n, void (*kernel)(const StepRecord*, P...),
                const A&... arguments) noexcept {
  if (n == 0) return 0;
  const unsigned blocks = device::element_blocks(n, device::kVectorWidth<T>, queue.processors);
  const StepRecord* step = call.step;
  return LAUNCH(kernel, dim3(blocks), dim3(device::kElementThreads), 0, stream_of(queue), step, arguments...);
}

// A row of the table: the call's arrays, those of the state by name.
inline void fill_span(const OpCall& call, std::initializer_list<std::string_view> states, CudaSpan* span) noexcept {
  const Tensor& param = operand(call, "param");
  *span = {param.data, gradient_of(call).data, {}, param.elements()};
  size_t k = 0;
  for (const std::string_view name : states) span->state[k++] = operand(call, name).data;
}

// The block calls f(part, span, first, n) for each of its parts: n elements of the span's arrays, from element `first` on.
template <class F>
__device__ __forceinline__ void for_parts(const CudaSpans& spans, const F& f) {
  for (int64_t b = blockIdx.x; b < spans.part_count; b += gridDim.x) {
    const CudaPart part = spans.parts[b];
    const CudaSpan& span = spans.spans[part.span];
    const int64_t left = span.n - part.first;
    f(b, span, part.first, static_cast<int>(left < kPartElements ? left : kPartElements));
  }
}

template <class T>
__device__ __forceinline__ T* element(void* array, int64_t first) {
  return static_cast<T*>(array) + first;
}
template <class T>
__device__ __forceinline__ const T* element(const void* array, int64_t first) {
  return static_cast<const T*>(array) + first;
}

// A kernel over many arrays: see for_parts.
template <class... P, class... A>
int launch_spans(const CudaQueue& queue, const CudaSpans& spans, void (*kernel)(CudaSpans, P...),
                 const A&... arguments) noexcept {
  if (spans.part_count == 0) return 0;
  const int64_t most = int64_t{8} * (queue.processors > 0 ? queue.processors : 1);
  const auto blocks = static_cast<unsigned>(spans.part_count < most ? spans.part_count : most);
  return LAUNCH(kernel, dim3(blocks), dim3(device::kElementThreads), 0, stream_of(queue), spans, arguments...);
}

}  // namespace gradring
