// mse, mae, huber and binary_cross_entropy, with their gradient, its column sums, and the totals: see pointwise_loss.h.
// Bytes per element: two reads and one write of sizeof(T). FLOPs per element: 4, or about 45.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/loss/loss_cuda.h"
#include "ops/pointwise_loss/point.h"

namespace gradring {

namespace {

using namespace device;

// The factor of a row's loss.
template <class T>
struct PointwiseWeight {
  const T* weights;
  const T* class_weights;  // the weight of target 0, and that of target 1
  const T* targets;        // one per row, for class_weights

  __device__ __forceinline__ Wide<T> operator()(int64_t row) const {
    const Wide<T> weight = weights ? widen(weights[row]) : Wide<T>(1);
    if (!class_weights) return weight;
    const Wide<T> zero = widen(class_weights[0]);
    return weight * (zero + widen(targets[row]) * (widen(class_weights[1]) - zero));
  }
};
template <class T>
__host__ __device__ PointwiseWeight<T> weight_of(const PointwiseLossArguments<T>& g) {
  return {g.weights, g.class_weights, g.targets};
}

template <bool kBlock, PointwiseLoss K, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    pointwise_kernel(const StepRecord* step, PointwiseLossArguments<T> g, LossScratch<T> scratch) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  DYNAMIC_SHARED(W, memory);
  const RowTeam<kBlock> team;
  const int columns = static_cast<int>(g.columns);
  const TeamSums<kBlock, 1, W> sums(team, scratch.sums, memory, g.column_sums ? columns : 0);
  const W share = W(1) / static_cast<W>(g.columns), all_scale = whole_scale(g.scale, scratch.weights);
  const W delta = widen(g.delta);
  const bool weighted = g.weights || g.class_weights;
  LossTotals totals;
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const int64_t at = row * g.columns;
    W scale = (g.dlosses ? all_scale * widen(g.dlosses[row]) : all_scale) * share, weight = 1;
    if (weighted) {
      weight = weight_of(g)(row);
      scale *= weight;
      note_weight(&totals, row, weight);
    }
    W loss = 0;
    bool wrong = K != PointwiseLoss::kBinaryCrossEntropy, bad = false;
    const auto look = [&](int j, const W* v) {
      W pos_weight = 0;
      if constexpr (K == PointwiseLoss::kBinaryCrossEntropy) {
        if (g.pos_weights) pos_weight = widen(g.pos_weights[j]);
        wrong |= (v[0] > W(0)) != (v[1] > W(0.5));
        bad |= !(v[1] >= W(0) && v[1] <= W(1));
      }
      const Point<W> here = point<K, W>(v[0], v[1], delta, g.pos_weights != nullptr, pos_weight);
      loss += here.loss;
      return here.slope;
    };
    if (g.gradient) {
      const Arrays<T> a{{g.predictions + at, g.targets + at}, {g.gradient + at}};
      for_elements<2, 1, 2>(team.me, team.all, columns, a, [&](int j, const W* v, W* slope) {
        slope[0] = look(j, v) * scale;
        if (g.column_sums) sums.add(0, j, slope[0]);
      });
    } else {
      const Arrays<T> a{{g.predictions + at, g.targets + at}, {}};
      for_elements<2, 0, 2>(team.me, team.all, columns, a, [&](int j, const W* v, W*) { (void)look(j, v); });
    }
    loss = team.reduce(loss, parts, Plus{}) * share;
    // A row of weight 0 adds 0 even if its loss is infinite.
    if (weighted) loss = weight == W(0) ? W(0) : loss * weight;
    wrong = team.any(wrong);
    bad = team.any(bad);
    totals.loss += static_cast<double>(loss);
    totals.correct += !wrong;
    if (bad && totals.bad_row < 0) totals.bad_row = row;
    if (team.me == 0 && g.losses) g.losses[row] = narrow<T>(loss);
    if (g.column_sums) team.sync();  // For the next row, other threads may write to these sums.
  }
  if (g.column_sums) sums.finish();
  store_totals(team, scratch.totals, totals);
}

struct Extent {
  int64_t rows, columns;
};
Extent extent_of(const Tensor& x) noexcept {
  int64_t columns = 1;
  for (int axis = 1; axis < x.rank; ++axis) columns *= x.shape[axis];
  return {x.shape[0], columns};
}

template <class T>
RowPlan plan_of(const OpCall& call, const CudaQueue& queue) noexcept {
  const Extent e = extent_of(operand(call, "x"));
  return row_plan<T>(e.rows, e.columns, queue.processors, operand(call, "column_sums") ? 1 : 0, false);
}

bool is_weighted(const OpCall& call) noexcept {
  return operand(call, "sample_weight") || operand(call, "class_weight");
}

template <PointwiseLoss K, class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  const Extent e = extent_of(x);
  PointwiseLossArguments<T> g;
  g.kind = K, g.rows = e.rows, g.columns = e.columns;
  g.predictions = x.as<const T>(), g.targets = operand(call, "target").as<const T>();
  g.losses = operand(call, "losses").as<T>(), g.gradient = operand(call, "dx").as<T>();
  g.dlosses = operand(call, "dlosses").as<const T>(), g.weights = operand(call, "sample_weight").as<const T>();
  g.class_weights = operand(call, "class_weight").as<const T>();
  g.pos_weights = operand(call, "pos_weight").as<const T>();
  g.delta = static_cast<T>(real(call, "delta", 1)), g.divide = cuda_divides(call, is_weighted(call));
  g.scale = static_cast<T>(cuda_loss_scale(call, g.rows, g.columns, is_weighted(call)));
  g.column_sums = operand(call, "column_sums").as<T>(), g.totals = operand(call, "totals").as<LossTotals>();
  const RowPlan plan = plan_of<T>(call, queue);
  const LossScratch<T> scratch(plan, g.rows, g.divide, queue.scratch);
  if (const int code = queue_weights(call, queue, g.rows, weight_of(g), scratch.weights); code != 0) return code;
  auto* const kernel = plan.block ? pointwise_kernel<true, K, T> : pointwise_kernel<false, K, T>;
  const StepRecord* step = call.step;
  const size_t shared = plan.shared > 16 ? plan.shared : 16;
  if (const int code =
          LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), shared, stream_of(queue), step, g, scratch);
      code != 0) {
    return code;
  }
  return finish_loss<T>(call, queue, plan, g.columns, scratch, g.column_sums, g.totals);
}

template <class T>
size_t bytes_of(const OpCall& call, const CudaQueue& queue) noexcept {
  const Extent e = extent_of(operand(call, "x"));
  return LossScratch<T>::bytes(plan_of<T>(call, queue), e.rows, e.columns,
                               static_cast<bool>(operand(call, "column_sums")), cuda_divides(call, is_weighted(call)));
}
size_t scratch(const OpCall& call, const CudaQueue& queue) noexcept {
  return operand(call, "x").dtype == Dtype::kFloat32 ? bytes_of<float>(call, queue) : bytes_of<double>(call, queue);
}

template <PointwiseLoss K>
CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"x", "target", "dlosses", "dx", "losses", "column_sums", "totals", "sample_weight",
                                     "class_weight", "pos_weight"}) &&
                     fits_int(extent_of(operand(call, "x")).columns);
  return known ? by_real_cuda<run<K, float>, run<K, double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel pointwise_loss_cuda_kernels[] = {
    {.op = "mse", .choose = choose<PointwiseLoss::kMse>, .scratch = scratch},
    {.op = "mae", .choose = choose<PointwiseLoss::kMae>, .scratch = scratch},
    {.op = "huber", .choose = choose<PointwiseLoss::kHuber>, .scratch = scratch},
    {.op = "binary_cross_entropy", .choose = choose<PointwiseLoss::kBinaryCrossEntropy>, .scratch = scratch},
};
extern const size_t pointwise_loss_cuda_kernel_count = std::size(pointwise_loss_cuda_kernels);

}  // namespace gradring
