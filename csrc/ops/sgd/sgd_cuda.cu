// Source: update_vector.h, the CPU's own text.
// Bytes per element: two reads and one write of sizeof(T), with momentum three and two. FLOPs per element: 4, or 6.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/cuda_step.h"
#include "ops/sgd/update_vector.h"

namespace gradring {

namespace {

using device::SgdKind;

template <class T>
struct Sgd {
  SgdArguments<T> g;
  StepScalars scalars;
};

template <SgdKind K, class T>
__global__ void __launch_bounds__(device::kElementThreads) sgd_kernel(const StepRecord* step, Sgd<T> s) {
  if (stopped(step)) return;
  constexpr bool kPlain = K == SgdKind::kPlain;
  SgdArguments<T> g = s.g;
  g.lr = s.scalars.rate(), g.grad_scale = s.scalars.scale();
  const device::SgdFactors<T> factors(g);
  const device::Arrays<T> a{{g.grad, g.param, g.velocity}, {g.param, g.velocity}};
  device::for_elements<kPlain ? 2 : 3, kPlain ? 1 : 2, kPlain ? 2 : 1, int64_t>(
      device::thread_in_grid(), device::threads_in_grid(), g.n, a, [&](int64_t, const T* x, T* y) {
        T values[2] = {x[1], kPlain ? T(0) : x[kPlain ? 1 : 2]};
        const auto get = [](const T* from) { return *from; };
        const auto put = [](T* to, T value) { *to = value; };
        device::update_vector<K, false, T>(factors, values, values + 1, x[0], get, put);
        y[0] = values[0];
        if constexpr (!kPlain) y[1] = values[1];
      });
}

template <SgdKind K, class T>
int launch(const OpCall& call, const CudaQueue& queue, const Sgd<T>& s) noexcept {
  const unsigned blocks = device::element_blocks(s.g.n, device::kVectorWidth<T>, queue.processors);
  const StepRecord* step = call.step;
  return LAUNCH((sgd_kernel<K, T>), dim3(blocks), dim3(device::kElementThreads), 0, stream_of(queue), step, s);
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  Sgd<T> s;
  const Tensor &param = operand(call, "param"), &grad = operand(call, "grad"), &gradient = operand(call, "gradient");
  const Tensor &velocity = operand(call, "velocity"), &momentum = operand(call, "momentum");
  s.g.n = param.elements(), s.g.param = param.as<T>(), s.g.grad = (grad ? grad : gradient).template as<const T>();
  s.g.velocity = (velocity ? velocity : momentum).template as<T>();
  s.g.momentum = real(call, "momentum"), s.g.nesterov = flag(call, "nesterov");
  s.g.weight_decay = real(call, "weight_decay");
  s.scalars = step_scalars(call);
  if (s.g.n == 0) return 0;
  if (s.g.momentum == 0) return launch<SgdKind::kPlain>(call, queue, s);
  if (s.g.nesterov) return launch<SgdKind::kNesterov>(call, queue, s);
  return launch<SgdKind::kMomentum>(call, queue, s);
}

template <class T>
CudaRun known(const OpCall& call) noexcept {
  const bool all = has_only(
      call, {"param", "grad", "velocity", "gradient", "momentum", "clip", "weight", "lr", "finite", "bounded"});
  return all && integer(call, "rate") == 0 ? run<T> : nullptr;  // none for a group's own rate, which is in host memory
}
CudaRun choose(const OpCall& call) noexcept {
  return call[0].dtype == Dtype::kFloat32 ? known<float>(call) : known<double>(call);
}

}  // namespace

extern const CudaKernel sgd_cuda_kernels[] = {
    {.op = "sgd_update", .choose = choose},
    {.op = "sgd", .choose = choose},
};
extern const size_t sgd_cuda_kernel_count = std::size(sgd_cuda_kernels);

}  // namespace gradring
