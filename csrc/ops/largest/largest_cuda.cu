// largest: see largest.h. A block of threads takes a block of the array.
// Bytes per element: one read of sizeof(T). FLOPs per element: 2.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/largest/largest.h"
#include "ops/math/math.h"

namespace gradring {

namespace {

// Magnitudes are ordered as their bits are, read as integers, and NaNs come after infinity.
template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    largest_kernel(const StepRecord* step, LargestArguments<T> g) {
  using Int = typename device::Float<T>::Int;
  if (stopped(step)) return;
  SHARED_ARRAY(Int, parts, device::kMostWarps);
  for (int64_t b = blockIdx.x; b < largest_blocks(g.n); b += gridDim.x) {
    const int64_t left = g.n - b * kLargestBlock;
    const int count = static_cast<int>(left < kLargestBlock ? left : kLargestBlock);
    Int most = 0;
    device::for_elements<1, 0, 4>(static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), count,
                                  device::Arrays<T>{{g.x + b * kLargestBlock}, {}}, [&](int, const T* v, T*) {
                                    const Int bits = device::bits_of<T>(device::abs<T>(v[0]));
                                    most = bits > most ? bits : most;
                                  });
    most = device::block_reduce(most, parts, device::Larger{});
    if (threadIdx.x == 0) g.y[b] = device::from_bits<T>(most);
  }
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  const LargestArguments<T> g{x.elements(), x.as<const T>(), operand(call, "y").as<T>()};
  const int64_t count = largest_blocks(g.n), most = int64_t{8} * queue.processors;
  if (count == 0) return 0;
  const StepRecord* step = call.step;
  return LAUNCH(largest_kernel<T>, dim3(static_cast<unsigned>(count < most ? count : most)),
                dim3(device::kElementThreads), 0, stream_of(queue), step, g);
}

}  // namespace

extern const CudaKernel largest_cuda_kernels[] = {{.op = "largest", .choose = by_real_cuda<run<float>, run<double>>}};
extern const size_t largest_cuda_kernel_count = std::size(largest_cuda_kernels);

}  // namespace gradring
