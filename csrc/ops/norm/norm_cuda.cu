// sum_of_squares: blocks of kNormBlock elements are summed in double, then added in a fixed order. clip: one thread.
// Bytes per element: one read of sizeof(T). FLOPs per element: 2.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/norm/norm.h"

namespace gradring {

namespace {

inline __host__ __device__ int64_t norm_blocks(int64_t n) { return (n + kNormBlock - 1) / kNormBlock; }

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    squares_kernel(const StepRecord* step, SumOfSquaresArguments<T> g, double* sums) {
  if (stopped(step)) return;
  SHARED_ARRAY(double, parts, device::kMostWarps);
  for (int64_t b = blockIdx.x; b < norm_blocks(g.n); b += gridDim.x) {
    const int64_t left = g.n - b * kNormBlock;
    const int count = static_cast<int>(left < kNormBlock ? left : kNormBlock);
    double sum = 0;
    device::for_elements<1, 0, 4>(static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), count,
                                  device::Arrays<T>{{g.x + b * kNormBlock}, {}}, [&](int, const T* v, T*) {
                                    sum += static_cast<double>(v[0]) * static_cast<double>(v[0]);
                                  });
    sum = device::block_reduce(sum, parts, device::Plus{});
    if (threadIdx.x == 0) sums[b] = sum;
  }
}

// One block.
__global__ void __launch_bounds__(device::kElementThreads)
    add_squares_kernel(const StepRecord* step, const double* sums, int64_t count, double* result) {
  if (stopped(step)) return;
  SHARED_ARRAY(double, parts, device::kMostWarps);
  double sum = 0;
  for (int64_t b = threadIdx.x; b < count; b += blockDim.x) sum += sums[b];
  sum = device::block_reduce(sum, parts, device::Plus{});
  if (threadIdx.x == 0) *result = sum;
}

template <class T>
int squares(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "gradient");
  const SumOfSquaresArguments<T> g{x.elements(), x.as<const T>(), operand(call, "sum").as<double>()};
  const int64_t count = norm_blocks(g.n), most = int64_t{8} * queue.processors;
  const StepRecord* step = call.step;
  auto* const sums = static_cast<double*>(queue.scratch);
  if (count > 0) {
    const int code = LAUNCH(squares_kernel<T>, dim3(static_cast<unsigned>(count < most ? count : most)),
                            dim3(device::kElementThreads), 0, stream_of(queue), step, g, sums);
    if (code != 0) return code;
  }
  return LAUNCH(add_squares_kernel, dim3(1), dim3(device::kElementThreads), 0, stream_of(queue), step, sums, count,
                g.result);
}

size_t scratch(const OpCall& call, const CudaQueue&) noexcept {
  return static_cast<size_t>(norm_blocks(operand(call, "gradient").elements())) * sizeof(double);
}

__global__ void clip_kernel(StepRecord* step, const double* sum, const double* weight, const double* loss_scale,
                            double limit, double* clip, double* norm) {
  if (stopped(step)) return;
  const double total = weight ? *weight : 1.0;
  const double multiplied = loss_scale ? *loss_scale : 1.0;
  const double scale = total == 0 ? 0.0 : 1.0 / total / multiplied;
  const double scaled = *sum * scale * scale;
  const double factor = limit / (sqrt(scaled) + 1e-6);
  *norm = sqrt(scaled);
  *clip = (factor < 1 || factor != factor ? factor : 1.0) / multiplied;
  if (scaled - scaled != 0) step->take_infinity();
}

int clip(const OpCall& call, const CudaQueue& queue) noexcept {
  return LAUNCH(clip_kernel, dim3(1), dim3(1), 0, stream_of(queue), call.step, operand(call, "sum").as<const double>(),
                operand(call, "weight").as<const double>(), operand(call, "scale").as<const double>(),
                real(call, "limit"), operand(call, "clip").as<double>(), operand(call, "norm").as<double>());
}

}  // namespace

extern const CudaKernel norm_cuda_kernels[] = {
    {.op = "sum_of_squares", .choose = by_real_cuda<squares<float>, squares<double>>, .scratch = scratch},
    {.op = "clip", .choose = always_cuda<clip>},
};
extern const size_t norm_cuda_kernel_count = std::size(norm_cuda_kernels);

}  // namespace gradring
