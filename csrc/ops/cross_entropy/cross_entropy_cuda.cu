// Cross-entropy of class numbers, with its gradient, the gradient's column sums, and the totals: see cross_entropy.h. A row
// that fits into shared memory is read from memory once, and a small second kernel adds up the blocks' sums. Bytes per
// element: one read and one write of sizeof(T); with column sums, also a block's row of sums, which stays in cache. FLOPs
// per element: about 45.
#include "cuda/device.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/cuda_call.h"
#include "ops/loss/loss_cuda.h"
#include "ops/math/math.h"

namespace gradring {

namespace {

using namespace device;

__device__ __forceinline__ int64_t label_of(const Labels& labels, int64_t row) {
  return labels.wide ? static_cast<const int64_t*>(labels.data)[row] : static_cast<const int32_t*>(labels.data)[row];
}

template <bool kBlock, bool kCached, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    cross_entropy_kernel(const StepRecord* step, CrossEntropyArguments<T> g, LossScratch<T> scratch) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  DYNAMIC_SHARED(T, memory);
  const RowTeam<kBlock> team;
  const int classes = static_cast<int>(g.classes);
  const TeamSums<kBlock, 1, W> sums(team, scratch.sums, reinterpret_cast<W*>(memory), g.column_sums ? classes : 0);
  LossTotals totals;
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const T* x = g.logits + row * g.classes;
    T* d = g.dlogits ? g.dlogits + row * g.classes : nullptr;
    const int64_t label = label_of(g.labels, row);
    if (label < 0 || label >= g.classes) {
      if (totals.bad_row < 0) totals.bad_row = row;
      if (team.me == 0 && g.losses) g.losses[row] = narrow<T>(W(0));
      if (d)
        for_elements<0, 1, 1>(team.me, team.all, classes, Arrays<T>{{}, {d}}, [&](int, const W*, W* v) { v[0] = 0; });
      continue;
    }
    T* cache = nullptr;
    if constexpr (kCached) cache = memory + reinterpret_cast<uintptr_t>(x) % 16 / sizeof(T);
    W most = -Float<W>::kInfinity;
    for_elements<1, kCached ? 1 : 0, 4>(team.me, team.all, classes, Arrays<T>{{x}, {cache}},
                                        [&](int, const W* v, W* kept) {
                                          most = Larger{}(v[0], most);
                                          if constexpr (kCached) kept[0] = v[0];
                                        });
    const W picked = widen(x[label]);
    most = team.reduce(most, parts, Larger{});
    const T* from = kCached ? cache : x;  // each thread reads from the cache only what it wrote there itself
    W sum = 0;
    bool earlier = false;
    for_elements<1, 0, 4>(team.me, team.all, classes, Arrays<T>{{from}, {}}, [&](int j, const W* v, W*) {
      sum += math::exp<W>(v[0] - most);
      earlier |= j < label && v[0] == picked;
    });
    sum = team.reduce(sum, parts, Plus{});
    earlier = team.any(earlier);
    const W loss = math::log<W>(sum) + (most - picked);
    totals.loss += static_cast<double>(loss);
    totals.correct += picked == most && !earlier;
    if (team.me == 0 && g.losses) g.losses[row] = narrow<T>(loss);
    if (!d) continue;
    const W scale = g.dlosses ? static_cast<W>(g.scale) * widen(g.dlosses[row]) : static_cast<W>(g.scale);
    const W weight = scale / sum;
    team.sync();  // every thread has read x[label]
    for_elements<1, 1, 4>(team.me, team.all, classes, Arrays<T>{{from}, {d}}, [&](int j, const W* v, W* slope) {
      slope[0] = math::exp<W>(v[0] - most) * weight - (j == label ? scale : W(0));
      if (g.column_sums) sums.add(0, j, slope[0]);
    });
    if (g.column_sums || kCached) team.sync();  // in the next row, other threads may use these sums and this cache
  }
  if (g.column_sums) sums.finish();
  if (team.me == 0) {
    scratch.totals[kBlock ? blockIdx.x
                          : blockIdx.x * static_cast<unsigned>(warps_in_block()) +
                                static_cast<unsigned>(warp_in_block())] = totals;
  }
}

template <class T>
RowPlan plan_of(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  return row_plan<T>(x.rows(), x.columns(), queue.processors, operand(call, "column_sums") ? 1 : 0, true);
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &target = operand(call, "target");
  CrossEntropyArguments<T> g;
  g.rows = x.rows(), g.classes = x.columns(), g.logits = x.as<const T>();
  g.labels = {target.data, target.dtype == Dtype::kInt64};
  g.losses = operand(call, "losses").as<T>(), g.dlogits = operand(call, "dx").as<T>();
  g.dlosses = operand(call, "dlosses").as<const T>();
  g.scale = static_cast<T>(cuda_loss_scale(call, g.rows, 1));
  g.column_sums = operand(call, "column_sums").as<T>(), g.totals = operand(call, "totals").as<LossTotals>();
  const RowPlan plan = plan_of<T>(call, queue);
  const LossScratch<T> scratch(plan, queue.scratch);
  auto* const kernel = !plan.block   ? cross_entropy_kernel<false, false, T>
                       : plan.cached ? cross_entropy_kernel<true, true, T>
                                     : cross_entropy_kernel<true, false, T>;
  if (const cudaError_t code = allow_shared(kernel, plan.shared); code != cudaSuccess) return code;
  const StepRecord* step = call.step;
  const size_t shared = plan.shared > 16 ? plan.shared : 16;
  if (const int code =
          LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), shared, stream_of(queue), step, g, scratch);
      code != 0) {
    return code;
  }
  return finish_loss<T>(call, queue, plan, g.classes, g.column_sums, g.totals);
}

size_t scratch(const OpCall& call, const CudaQueue& queue) noexcept {
  const int64_t columns = operand(call, "x").columns();
  const bool sums = static_cast<bool>(operand(call, "column_sums"));
  return operand(call, "x").dtype == Dtype::kFloat32
             ? LossScratch<float>::bytes(plan_of<float>(call, queue), columns, sums)
             : LossScratch<double>::bytes(plan_of<double>(call, queue), columns, sums);
}

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"x", "target", "dlosses", "dx", "losses", "column_sums", "totals"}) &&
                     fits_int(operand(call, "x").columns()) && real(call, "label_smoothing") == 0 &&
                     (only(operand(call, "target").dtype) & kClassNumberDtypes) != 0;
  return known ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel cross_entropy_cuda_kernels[] = {{.op = "cross_entropy", .choose = choose, .scratch = scratch}};
extern const size_t cross_entropy_cuda_kernel_count = std::size(cross_entropy_cuda_kernels);

}  // namespace gradring
