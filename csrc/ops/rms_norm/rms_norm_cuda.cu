// rms_norm and its vjp: see rms_norm.h.
// Bytes per element: forward one read and one write of sizeof(T), vjp two reads and one write, where the row stays in cache.
// FLOPs per element: 4, vjp 10.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/simd.h"

namespace gradring {

namespace {

using namespace device;

template <class W>
struct Moments {
  W mean, scale;
};

// Returns 1 / sqrt(mean(x^2) + eps) of a row. rms_norm subtracts no mean.
template <class T, class Team, class W>
__device__ __forceinline__ Moments<W> moments(const Team& team, const T* x, int columns, W eps, W* parts) {
  W squares = 0;
  for_elements<1, 0, 4>(team.me, team.all, columns, Arrays<T>{{x}, {}},
                        [&](int, const W* v, W*) { squares += v[0] * v[0]; });
  const W mean = team.reduce(squares, parts, Plus{}) / static_cast<W>(columns);
  return {W(0), W(1) / square_root<W>(mean + eps)};
}

template <bool kBlock, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1) rms_norm_kernel(const StepRecord* step, RmsNormArguments<T> g) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  const RowTeam<kBlock> team;
  const int columns = static_cast<int>(g.columns);
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const int64_t at = row * g.columns;
    const Moments<W> m = moments<T>(team, g.x + at, columns, static_cast<W>(g.eps), parts);
    for_elements<1, 1, 4>(team.me, team.all, columns, Arrays<T>{{g.x + at}, {g.y + at}}, [&](int j, const W* v, W* y) {
      y[0] = v[0] * m.scale;
      if (g.weight) y[0] *= widen(g.weight[j]);
    });
  }
}

// `sums` receives each block's sums of dy xhat over its rows.
template <bool kBlock, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    rms_norm_vjp_kernel(const StepRecord* step, RmsNormVjpArguments<T> g, Wide<T>* block_sums) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  DYNAMIC_SHARED(W, memory);
  const RowTeam<kBlock> team;
  const int columns = static_cast<int>(g.columns);
  const bool summing = block_sums != nullptr;
  const TeamSums<kBlock, 1, W> sums(team, block_sums, memory, summing ? columns : 0);
  const W each = W(1) / static_cast<W>(g.columns);
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const int64_t at = row * g.columns;
    const Moments<W> m = moments<T>(team, g.x + at, columns, static_cast<W>(g.eps), parts);
    W total = 0, along = 0;
    for_elements<2, 0, 2>(team.me, team.all, columns, Arrays<T>{{g.dy + at, g.x + at}, {}}, [&](int j, const W* v, W*) {
      const W slope = v[0] * (v[1] * m.scale);
      if (summing) {
        sums.add(0, j, slope);
      }
      const W weight = g.weight ? widen(g.weight[j]) : W(1);
      total += v[0] * weight;
      along += slope * weight;
    });
    if (g.dx) {
      (void)total;
      const W mean_gx = team.reduce(along, parts, Plus{}) * each;
      team.sync();  // dx may share the memory of dy or x: wait until all threads have read
      const Arrays<T> a{{g.dy + at, g.x + at}, {g.dx + at}};
      for_elements<2, 1, 2>(team.me, team.all, columns, a, [&](int j, const W* v, W* dx) {
        const W d = g.weight ? v[0] * widen(g.weight[j]) : v[0];
        dx[0] = (d - v[1] * m.scale * mean_gx) * m.scale;
      });
    }
    team.sync();  // in the next row, other threads may use these sums
  }
  if (summing) sums.finish();
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    rms_norm_sums_kernel(const StepRecord* step, RmsNormVjpArguments<T> g, const Wide<T>* block_sums, int64_t blocks) {
  if (stopped(step)) return;
  if (g.dweight) add_rows(block_sums, blocks, 1 * g.columns, g.columns, g.dweight);
}

template <class T>
int forward(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  RmsNormArguments<T> g;
  g.rows = x.rows(), g.columns = x.columns(), g.x = x.as<const T>(), g.y = operand(call, "y").as<T>();
  g.weight = operand(call, "weight").as<const T>(), g.eps = real(call, "eps");
  if (g.rows == 0 || g.columns == 0) return 0;
  const RowPlan plan = row_plan<T>(g.rows, g.columns, queue.processors, 0, false);
  auto* const kernel = plan.block ? rms_norm_kernel<true, T> : rms_norm_kernel<false, T>;
  const StepRecord* step = call.step;
  return LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), 0, stream_of(queue), step, g);
}

template <class T>
RowPlan plan_of(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  const bool sums = operand(call, "dweight") || operand(call, "dbias");
  return row_plan<T>(x.rows(), x.columns(), queue.processors, sums ? 1 : 0, false);
}

template <class T>
int vjp(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  RmsNormVjpArguments<T> g;
  g.rows = x.rows(), g.columns = x.columns(), g.x = x.as<const T>(), g.dy = operand(call, "dy").as<const T>();
  g.weight = operand(call, "weight").as<const T>(), g.dx = operand(call, "dx").as<T>(), g.eps = real(call, "eps");
  g.dweight = operand(call, "dweight").as<T>();
  if (g.columns == 0) return 0;
  const RowPlan plan = plan_of<T>(call, queue);
  const bool summing = g.dweight;
  auto* const sums = summing ? static_cast<Wide<T>*>(queue.scratch) : nullptr;
  auto* const kernel = plan.block ? rms_norm_vjp_kernel<true, T> : rms_norm_vjp_kernel<false, T>;
  if (const cudaError_t code = allow_shared(kernel, plan.shared); code != cudaSuccess) return code;
  const StepRecord* step = call.step;
  const size_t shared = plan.shared > 16 ? plan.shared : 16;
  const int code = LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), shared, stream_of(queue), step, g, sums);
  if (code != 0 || !summing) return code;
  return LAUNCH(rms_norm_sums_kernel<T>, dim3(blocks_for(g.columns, queue.processors)), dim3(kElementThreads), 0,
                stream_of(queue), step, g, sums, static_cast<int64_t>(plan.blocks));
}

size_t scratch(const OpCall& call, const CudaQueue& queue) noexcept {
  if (!operand(call, "dweight") && !operand(call, "dbias")) return 0;
  const auto columns = static_cast<size_t>(operand(call, "x").columns());
  return operand(call, "x").dtype == Dtype::kFloat32
             ? plan_of<float>(call, queue).blocks * 1 * columns * sizeof(Wide<float>)
             : plan_of<double>(call, queue).blocks * 1 * columns * sizeof(Wide<double>);
}

template <CudaRun kFloat, CudaRun kDouble>
CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"x", "weight", "bias", "y", "dy", "dx", "dweight", "dbias"});
  return known && fits_int(operand(call, "x").columns()) ? by_real_cuda<kFloat, kDouble>(call) : nullptr;
}

}  // namespace

extern const CudaKernel rms_norm_cuda_kernels[] = {
    {.op = "rms_norm", .choose = choose<forward<float>, forward<double>>},
    {.op = "rms_norm_vjp", .choose = choose<vjp<float>, vjp<double>>, .scratch = scratch},
};
extern const size_t rms_norm_cuda_kernel_count = std::size(rms_norm_cuda_kernels);

}  // namespace gradring
