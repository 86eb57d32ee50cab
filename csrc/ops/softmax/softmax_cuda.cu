// softmax and log_softmax, and their vjp: see softmax.h.
// Bytes per element: forward one read and one write of sizeof(T), vjp two reads and one write, where the row stays in shared
// memory or in cache. FLOPs per element: about 25, vjp 4 (logarithm: 22).
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/math/math.h"
#include "ops/softmax/softmax.h"

namespace gradring {

namespace {

using namespace device;

template <bool kBlock, bool kCached, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1) softmax_kernel(const StepRecord* step, SoftmaxArguments<T> g) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  const RowTeam<kBlock> team;
  const int columns = static_cast<int>(g.columns);
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const T* x = g.x + row * g.columns;
    T* cache = nullptr;
    if constexpr (kCached) {
      DYNAMIC_SHARED(T, memory);
      cache = memory + reinterpret_cast<uintptr_t>(x) % 16 / sizeof(T);
    }
    W most = -Float<W>::kInfinity;
    for_elements<1, kCached ? 1 : 0, 4>(team.me, team.all, columns, Arrays<T>{{x}, {cache}},
                                        [&](int, const W* v, W* kept) {
                                          most = Larger{}(v[0], most);
                                          if constexpr (kCached) kept[0] = v[0];
                                        });
    most = team.reduce(most, parts, Larger{});
    // Each thread reads only those elements of `cache`, in shared memory, that it wrote itself: no barrier is needed.
    const T* from = kCached ? cache : x;
    W sum = 0;
    for_elements<1, 0, 4>(team.me, team.all, columns, Arrays<T>{{from}, {}},
                          [&](int, const W* v, W*) { sum += math::exp<W>(v[0] - most); });
    sum = team.reduce(sum, parts, Plus{});
    const Arrays<T> a{{from}, {g.y + row * g.columns}};
    if (g.logarithm) {
      const W log = math::log<W>(sum);
      for_elements<1, 1, 4>(team.me, team.all, columns, a, [&](int, const W* v, W* y) { y[0] = v[0] - most - log; });
    } else {
      const W share = W(1) / sum;
      for_elements<1, 1, 4>(team.me, team.all, columns, a,
                            [&](int, const W* v, W* y) { y[0] = math::exp<W>(v[0] - most) * share; });
    }
    // For the next row, other threads may write to the places in `cache` that this thread has read.
    if constexpr (kCached) team.sync();
  }
}

template <bool kBlock, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    softmax_vjp_kernel(const StepRecord* step, SoftmaxVjpArguments<T> g) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  const RowTeam<kBlock> team;
  const int columns = static_cast<int>(g.columns);
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const int64_t at = row * g.columns;
    const Arrays<T> a{{g.dy + at, g.y + at}, {g.dx + at}};
    const bool logarithm = g.logarithm;
    W sum = 0;
    for_elements<2, 0, 2>(team.me, team.all, columns, a,
                          [&](int, const W* v, W*) { sum += logarithm ? v[0] : v[0] * v[1]; });
    sum = team.reduce(sum, parts, Plus{});
    for_elements<2, 1, 2>(team.me, team.all, columns, a, [&](int, const W* v, W* dx) {
      dx[0] = logarithm ? v[0] - math::exp<W>(v[1]) * sum : v[1] * (v[0] - sum);
    });
  }
}

template <class T>
int forward(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  SoftmaxArguments<T> g{x.rows(), x.columns(), x.as<const T>(), operand(call, "y").as<T>(), flag(call, "logarithm")};
  if (g.rows == 0 || g.columns == 0) return 0;
  const RowPlan plan = row_plan<T>(g.rows, g.columns, queue.processors, 0, true);
  auto* const kernel = !plan.block   ? softmax_kernel<false, false, T>
                       : plan.cached ? softmax_kernel<true, true, T>
                                     : softmax_kernel<true, false, T>;
  if (const cudaError_t code = allow_shared(kernel, plan.shared); code != cudaSuccess) return code;
  const StepRecord* step = call.step;
  return LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), plan.shared, stream_of(queue), step, g);
}

template <class T>
int vjp(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& dy = operand(call, "dy");
  SoftmaxVjpArguments<T> g{dy.rows(),
                           dy.columns(),
                           dy.as<const T>(),
                           operand(call, "y").as<const T>(),
                           operand(call, "dx").as<T>(),
                           flag(call, "logarithm")};
  if (g.rows == 0 || g.columns == 0) return 0;
  const RowPlan plan = row_plan<T>(g.rows, g.columns, queue.processors, 0, false);
  auto* const kernel = plan.block ? softmax_vjp_kernel<true, T> : softmax_vjp_kernel<false, T>;
  const StepRecord* step = call.step;
  return LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), plan.shared, stream_of(queue), step, g);
}

template <CudaRun kFloat, CudaRun kDouble>
CudaRun choose(const OpCall& call) noexcept {
  return fits_int(call[0].columns()) ? by_real_cuda<kFloat, kDouble>(call) : nullptr;
}

}  // namespace

extern const CudaKernel softmax_cuda_kernels[] = {
    {.op = "softmax", .choose = choose<forward<float>, forward<double>>},
    {.op = "softmax_vjp", .choose = choose<vjp<float>, vjp<double>>},
};
extern const size_t softmax_cuda_kernel_count = std::size(softmax_cuda_kernels);

}  // namespace gradring
