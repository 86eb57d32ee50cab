// Bytes per element of a gradient, where norms or checks are wanted: one read. FLOPs per element: 3.
#include "cuda/device.h"
#include "ops/cuda_step.h"
#include "program/cuda/plant.h"
#include "program/cuda/update_ledger.h"

namespace gradring {

namespace {

template <class T>
__global__ void loss_kernel(UpdateLedger* ledger, const T* loss, int64_t entry, bool check) {
  StepRecord& step = ledger->record;
  if (step.fault != Fault::kNone) return;
  const auto value = static_cast<double>(*loss);
  ledger->losses[entry % UpdateLedger::kLosses] = value;
  if (!check || value - value == 0) return;
  step.fault = Fault::kNonFinite;
  ledger->fault_entry = entry;
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads) part_squares_kernel(CudaSpans spans, PartSum* sums) {
  if (stopped(spans.step)) return;
  SHARED_ARRAY(double, shared, device::kMostWarps);
  for_parts(spans, [&](int64_t part, const CudaSpan& span, int64_t first, int n) {
    double sum = 0, bad = 0;
    device::for_elements<1, 0, 4>(static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), n,
                                  device::Arrays<T>{{element<T>(span.grad, first)}, {}}, [&](int, const T* v, T*) {
                                    sum += static_cast<double>(v[0]) * static_cast<double>(v[0]);
                                    if (!(v[0] - v[0] == 0)) bad = 1;
                                  });
    sum = device::block_reduce(sum, shared, device::Plus{});
    bad = device::block_reduce(bad, shared, device::Larger{});
    if (threadIdx.x == 0) sums[part] = {sum, bad};
  });
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads) sums_kernel(CudaSpans spans, T samples, bool first_batch) {
  if (stopped(spans.step)) return;
  for_parts(spans, [&](int64_t, const CudaSpan& span, int64_t first, int n) {
    T* const sum = element<T>(span.param, first);
    device::for_elements<2, 1, 2>(static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), n,
                                  device::Arrays<T>{{sum, element<T>(span.grad, first)}, {sum}},
                                  [&](int, const T* x, T* y) { y[0] = samples * x[1] + (first_batch ? T(0) : x[0]); });
  });
}

struct Smaller {
  __device__ __forceinline__ int64_t operator()(int64_t a, int64_t b) const { return a < b ? a : b; }
};

// One block.
__global__ void __launch_bounds__(device::kElementThreads) decide_kernel(UpdateLedger* ledger, Decision d) {
  StepRecord& step = ledger->record;
  if (step.fault != Fault::kNone) return;
  SHARED_ARRAY(double, sums, device::kMostWarps);
  SHARED_ARRAY(int64_t, places, device::kMostWarps);
  double squares = 0;
  int64_t bad = d.part_count;
  for (int64_t b = threadIdx.x; d.sums != nullptr && b < d.part_count; b += blockDim.x) {
    squares += d.sums[b].squares;
    if (d.sums[b].bad != 0 && b < bad) bad = b;
  }
  squares = device::block_reduce(squares, sums, device::Plus{});
  bad = device::block_reduce(bad, places, Smaller{});  // its barriers come after each thread's look at the fault
  if (threadIdx.x != 0) return;
  const UpdateHeader& header = *d.header;
  if (d.check && bad < d.part_count) {
    step.fault = Fault::kGradient;
    ledger->fault_entry = header.entry, ledger->fault_span = d.parts[bad].span;
    return;
  }
  step.number = header.number;
  step.rates = reinterpret_cast<const double*>(d.header + 1), step.rate_count = header.rate_count;
  step.learning_rate = step.rates[0];
  step.total_weight = header.weight;
  step.clip = 1;
  if (d.limit < 0) return;
  step.gradient_norm = sqrt(squares) / fabs(header.weight);
  const double factor = d.limit / (step.gradient_norm + 1e-6);  // the same as clip_factor in norm.h
  step.clip = factor < 1 || factor != factor ? factor : 1.0;
}

__global__ void no_fault_kernel(UpdateLedger* ledger) {
  ledger->record.fault = Fault::kNone;
  ledger->fault_entry = ledger->fault_span = -1;
}

cudaStream_t stream_of(void* stream) noexcept { return static_cast<cudaStream_t>(stream); }

}  // namespace

int queue_loss(UpdateLedger* ledger, const void* loss, Dtype dtype, int64_t entry, bool check, void* stream) noexcept {
  if (dtype == Dtype::kFloat64) {
    return LAUNCH(loss_kernel<double>, dim3(1), dim3(1), 0, stream_of(stream), ledger, static_cast<const double*>(loss),
                  entry, check);
  }
  return LAUNCH(loss_kernel<float>, dim3(1), dim3(1), 0, stream_of(stream), ledger, static_cast<const float*>(loss),
                entry, check);
}

int queue_squares(const CudaSpans& spans, Dtype dtype, PartSum* sums, int processors, void* stream) noexcept {
  const CudaQueue queue{stream, processors, nullptr, nullptr};
  auto* const kernel = dtype == Dtype::kFloat64 ? part_squares_kernel<double> : part_squares_kernel<float>;
  return launch_spans(queue, spans, kernel, sums);
}

int queue_sums(const CudaSpans& spans, Dtype dtype, double samples, bool first, int processors, void* stream) noexcept {
  const CudaQueue queue{stream, processors, nullptr, nullptr};
  if (dtype == Dtype::kFloat64) return launch_spans(queue, spans, sums_kernel<double>, samples, first);
  return launch_spans(queue, spans, sums_kernel<float>, static_cast<float>(samples), first);
}

int queue_decision(UpdateLedger* ledger, const Decision& decision, void* stream) noexcept {
  return LAUNCH(decide_kernel, dim3(1), dim3(device::kElementThreads), 0, stream_of(stream), ledger, decision);
}

int queue_no_fault(UpdateLedger* ledger, void* stream) noexcept {
  return LAUNCH(no_fault_kernel, dim3(1), dim3(1), 0, stream_of(stream), ledger);
}

}  // namespace gradring
