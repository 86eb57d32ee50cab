// One source for layer_norm and rms_norm on a CUDA device. Both divide a row by its deviation; layer_norm subtracts the mean, too. To
// be included after cuda/device.h.
// Bytes per element: forward one read and one write of sizeof(T), vjp two reads and one write, where the row stays in cache.
// FLOPs per element: 8, vjp 14; without the mean 4 and 10.
#pragma once

#include "ops/cuda_call.h"
#include "ops/simd.h"

namespace gradring {

namespace row_norm {

using namespace device;

// The operands that a call does not have are null, as in layer_norm.h.
template <class T>
struct Arguments {
  int64_t rows = 0, columns = 0;
  const T* x = nullptr;
  const T* weight = nullptr;
  const T* bias = nullptr;
  T* y = nullptr;
  const T* dy = nullptr;
  T* dx = nullptr;
  T* dweight = nullptr;
  T* dbias = nullptr;
  double eps = 0;

  bool summing() const noexcept { return dweight || dbias; }
};

// How many sums over the rows a vjp makes: of dy xhat, and with a mean also of dy.
template <bool kMean>
inline constexpr int kSums = kMean ? 2 : 1;

template <class W>
struct Moments {
  W mean, scale;
};

// Computes a row's mean, or 0 without kMean, and 1 / sqrt(variance + eps), or 1 / sqrt(mean(x^2) + eps). The mean comes first, so a
// large mean costs no accuracy.
template <bool kMean, class T, class Team, class W>
__device__ __forceinline__ Moments<W> moments(const Team& team, const T* x, int columns, W eps, W* parts) {
  const W each = W(1) / static_cast<W>(columns);
  const Arrays<T> a{{x}, {}};
  W mean = 0;
  if constexpr (kMean) {
    W sum = 0;
    for_elements<1, 0, 4>(team.me, team.all, columns, a, [&](int, const W* v, W*) { sum += v[0]; });
    mean = team.reduce(sum, parts, Plus{}) * each;
  }
  W squares = 0;
  for_elements<1, 0, 4>(team.me, team.all, columns, a, [&](int, const W* v, W*) {
    const W d = v[0] - mean;
    squares += d * d;
  });
  const W variance = team.reduce(squares, parts, Plus{}) * each;
  return {mean, W(1) / square_root<W>(variance + eps)};
}

template <bool kBlock, bool kMean, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1) row_norm_kernel(const StepRecord* step, Arguments<T> g) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  const RowTeam<kBlock> team;
  const int columns = static_cast<int>(g.columns);
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const int64_t at = row * g.columns;
    const Moments<W> m = moments<kMean, T>(team, g.x + at, columns, static_cast<W>(g.eps), parts);
    for_elements<1, 1, 4>(team.me, team.all, columns, Arrays<T>{{g.x + at}, {g.y + at}}, [&](int j, const W* v, W* y) {
      y[0] = (v[0] - m.mean) * m.scale;
      if (g.weight) y[0] *= widen(g.weight[j]);
      if (g.bias) y[0] += widen(g.bias[j]);
    });
  }
}

// block_sums receives each block's sums over its rows: of dy xhat and, with kMean, of dy. It is null if no sums are wanted.
template <bool kBlock, bool kMean, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    row_norm_vjp_kernel(const StepRecord* step, Arguments<T> g, Wide<T>* block_sums) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  DYNAMIC_SHARED(W, memory);
  const RowTeam<kBlock> team;
  const int columns = static_cast<int>(g.columns);
  const bool summing = block_sums != nullptr;
  const TeamSums<kBlock, kSums<kMean>, W> sums(team, block_sums, memory, summing ? columns : 0);
  const W each = W(1) / static_cast<W>(g.columns);
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const int64_t at = row * g.columns;
    const Moments<W> m = moments<kMean, T>(team, g.x + at, columns, static_cast<W>(g.eps), parts);
    W total = 0, along = 0;
    for_elements<2, 0, 2>(team.me, team.all, columns, Arrays<T>{{g.dy + at, g.x + at}, {}}, [&](int j, const W* v, W*) {
      const W slope = v[0] * ((v[1] - m.mean) * m.scale);
      if (summing) {
        sums.add(0, j, slope);
        if constexpr (kMean) sums.add(1, j, v[0]);
      }
      const W weight = g.weight ? widen(g.weight[j]) : W(1);
      if constexpr (kMean) total += v[0] * weight;
      along += slope * weight;
    });
    if (g.dx) {
      W mean_g = 0;
      if constexpr (kMean) mean_g = team.reduce(total, parts, Plus{}) * each;
      const W mean_gx = team.reduce(along, parts, Plus{}) * each;
      team.sync();  // dx may share the memory of dy or x: wait until all threads have read
      const Arrays<T> a{{g.dy + at, g.x + at}, {g.dx + at}};
      for_elements<2, 1, 2>(team.me, team.all, columns, a, [&](int j, const W* v, W* dx) {
        const W d = g.weight ? v[0] * widen(g.weight[j]) : v[0];
        dx[0] = (d - mean_g - (v[1] - m.mean) * m.scale * mean_gx) * m.scale;
      });
    }
    team.sync();  // For the next row, other threads may write to these sums.
  }
  if (summing) sums.finish();
}

template <bool kMean, class T>
__global__ void __launch_bounds__(kElementThreads)
    row_norm_sums_kernel(const StepRecord* step, Arguments<T> g, const Wide<T>* block_sums, int64_t blocks) {
  if (stopped(step)) return;
  if (g.dweight) add_rows(block_sums, blocks, kSums<kMean> * g.columns, g.columns, g.dweight);
  if (kMean && g.dbias) add_rows(block_sums + g.columns, blocks, kSums<kMean> * g.columns, g.columns, g.dbias);
}

// Operands by name; an op goes without those that it does not have.
template <class T>
Arguments<T> arguments_of(const OpCall& call) noexcept {
  const Tensor& x = operand(call, "x");
  Arguments<T> g;
  g.rows = x.rows(), g.columns = x.columns(), g.x = x.as<const T>(), g.y = operand(call, "y").as<T>();
  g.weight = operand(call, "weight").as<const T>(), g.bias = operand(call, "bias").as<const T>();
  g.dy = operand(call, "dy").as<const T>(), g.dx = operand(call, "dx").as<T>();
  g.dweight = operand(call, "dweight").as<T>(), g.dbias = operand(call, "dbias").as<T>();
  g.eps = real(call, "eps");
  return g;
}

template <bool kMean, class T>
int forward(const OpCall& call, const CudaQueue& queue) noexcept {
  const Arguments<T> g = arguments_of<T>(call);
  if (g.rows == 0 || g.columns == 0) return 0;
  const RowPlan plan = row_plan<T>(g.rows, g.columns, queue.processors, 0, false);
  auto* const kernel = plan.block ? row_norm_kernel<true, kMean, T> : row_norm_kernel<false, kMean, T>;
  const StepRecord* step = call.step;
  return LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), 0, stream_of(queue), step, g);
}

template <bool kMean, class T>
RowPlan vjp_plan(const Arguments<T>& g, const CudaQueue& queue) noexcept {
  return row_plan<T>(g.rows, g.columns, queue.processors, g.summing() ? kSums<kMean> : 0, false);
}

template <bool kMean, class T>
int vjp(const OpCall& call, const CudaQueue& queue) noexcept {
  const Arguments<T> g = arguments_of<T>(call);
  if (g.columns == 0) return 0;
  const RowPlan plan = vjp_plan<kMean>(g, queue);
  auto* const sums = g.summing() ? static_cast<Wide<T>*>(queue.scratch) : nullptr;
  auto* const kernel = plan.block ? row_norm_vjp_kernel<true, kMean, T> : row_norm_vjp_kernel<false, kMean, T>;
  if (const cudaError_t code = allow_shared(kernel, plan.shared); code != cudaSuccess) return code;
  const StepRecord* step = call.step;
  const size_t shared = plan.shared > 16 ? plan.shared : 16;
  const int code = LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), shared, stream_of(queue), step, g, sums);
  if (code != 0 || !g.summing()) return code;
  return LAUNCH((row_norm_sums_kernel<kMean, T>), dim3(blocks_for(g.columns, queue.processors)), dim3(kElementThreads),
                0, stream_of(queue), step, g, sums, static_cast<int64_t>(plan.blocks));
}

template <bool kMean, class T>
size_t vjp_bytes(const OpCall& call, const CudaQueue& queue) noexcept {
  const Arguments<T> g = arguments_of<T>(call);
  if (!g.summing()) return 0;
  return vjp_plan<kMean>(g, queue).blocks * kSums<kMean> * static_cast<size_t>(g.columns) * sizeof(Wide<T>);
}

template <bool kMean>
size_t vjp_scratch(const OpCall& call, const CudaQueue& queue) noexcept {
  return operand(call, "x").dtype == Dtype::kFloat32 ? vjp_bytes<kMean, float>(call, queue)
                                                     : vjp_bytes<kMean, double>(call, queue);
}

template <CudaRun kFloat, CudaRun kDouble>
CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"x", "weight", "bias", "y", "dy", "dx", "dweight", "dbias"});
  return known && fits_int(operand(call, "x").columns()) ? by_real_cuda<kFloat, kDouble>(call) : nullptr;
}

}  // namespace row_norm

// The kernels of a norm with a mean, or without.
template <bool kMean>
constexpr CudaKernel row_norm_forward(const char* op) {
  return {.op = op, .choose = row_norm::choose<row_norm::forward<kMean, float>, row_norm::forward<kMean, double>>};
}
template <bool kMean>
constexpr CudaKernel row_norm_backward(const char* op) {
  return {.op = op,
          .choose = row_norm::choose<row_norm::vjp<kMean, float>, row_norm::vjp<kMean, double>>,
          .scratch = row_norm::vjp_scratch<kMean>};
}

}  // namespace gradring
