// bound_gradient and check_gradients: see op.cc. One block reads the largest magnitudes; a maximum does not depend on
// the order. Bytes per magnitude: one read of sizeof(T). FLOPs per magnitude: 1.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/math/math.h"

namespace gradring {

namespace {

// Returns the largest of the blocks' magnitudes in all threads; infinity if one is a NaN.
template <class T>
__device__ double most_of(const T* blocks, int64_t count, double* parts) {
  double most = 0;
  for (int64_t b = threadIdx.x; b < count; b += blockDim.x) {
    const auto value = static_cast<double>(blocks[b]);
    most = value <= most ? most : value < device::Float<double>::kInfinity ? value : device::Float<double>::kInfinity;
  }
  return device::block_reduce(most, parts, device::Larger{});
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    bound_kernel(StepRecord* step, const T* x, int64_t x_count, const T* dy, int64_t dy_count, double rows,
                 double dy_bound, double limit) {
  if (stopped(step) || !step->check_finite) return;
  SHARED_ARRAY(double, parts, device::kMostWarps);
  double of_x = 1, of_dy = dy_bound;
  if (x) of_x = most_of(x, x_count, parts);
  if (dy) of_dy = most_of(dy, dy_count, parts);
  if (threadIdx.x != 0) return;
  // Take at least 1 for x, so that the bound also covers the column sums of dy, which are a bias's gradient.
  if (rows * (of_x > 1 ? of_x : 1) * of_dy < limit) return;
  step->moment = static_cast<uint8_t>((step->moment & ~static_cast<unsigned>(When::kBounded)) |
                                      static_cast<unsigned>(When::kUnbounded));
}

template <class T>
int bound(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &dy = operand(call, "dy");
  return LAUNCH(bound_kernel<T>, dim3(1), dim3(device::kElementThreads), 0, stream_of(queue), call.step,
                x.as<const T>(), x ? x.elements() : 0, dy.as<const T>(), dy ? dy.elements() : 0,
                static_cast<double>(integer(call, "rows")), real(call, "dy_bound"),
                static_cast<double>(std::numeric_limits<T>::max()) / 4);
}

CudaRun choose_bound(const OpCall& call) noexcept {
  const Tensor& given = operand(call, "x") ? operand(call, "x") : operand(call, "dy");
  return given && given.dtype == Dtype::kFloat64 ? bound<double> : bound<float>;
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    whole_kernel(StepRecord* step, const T* largest, int64_t count) {
  if (stopped(step) || !step->check_finite) return;
  SHARED_ARRAY(double, parts, device::kMostWarps);
  const double most = most_of(largest, count, parts);
  if (threadIdx.x == 0 && most == device::Float<double>::kInfinity) step->fault = Fault::kGradient;
}

template <class T>
int whole(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& largest = operand(call, "largest");
  return LAUNCH(whole_kernel<T>, dim3(1), dim3(device::kElementThreads), 0, stream_of(queue), call.step,
                largest.as<const T>(), largest.elements());
}

}  // namespace

extern const CudaKernel gradient_check_cuda_kernels[] = {
    {.op = "bound_gradient", .choose = choose_bound},
    {.op = "check_gradients", .choose = by_real_cuda<whole<float>, whole<double>>},
};
extern const size_t gradient_check_cuda_kernel_count = std::size(gradient_check_cuda_kernels);

}  // namespace gradring
