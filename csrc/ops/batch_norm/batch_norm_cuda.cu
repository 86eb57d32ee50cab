// batch_norm, its vjp, its inference, and the update of running moments: see batch_norm.h. Moments are merged group by group
// (Chan, Golub and LeVeque 1979), so a large mean costs no accuracy.
// Bytes per element, of sizeof(T): training two reads of x (the second pass of a group finds it in cache) and one write; vjp two
// reads of dy and x and one write; inference one read and one write. FLOPs per element: 7, vjp 10, inference 3.
#include "cuda/device.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/cuda_call.h"
#include "ops/cuda_columns.h"
#include "ops/simd.h"

namespace gradring {

namespace {

using namespace device;

// The scratch memory: two numbers per group and column, then rows of one number per column.
template <class W>
struct Scratch {
  W *groups, *mean, *variance, *factor, *shift, *tilt;

  Scratch(void* memory, const ColumnPlan& plan) noexcept {
    groups = static_cast<W*>(memory);
    W* rows = groups + 2 * plan.groups * plan.columns;
    mean = rows, variance = rows + plan.columns, factor = rows + 2 * plan.columns;
    shift = rows + 3 * plan.columns, tilt = rows + 4 * plan.columns;
  }
  static size_t bytes(const ColumnPlan& plan) noexcept {
    return static_cast<size_t>((2 * plan.groups + 5) * plan.columns) * sizeof(W);
  }
};

// Computes each group's mean, and the sum of the squared differences from it.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    moments_kernel(const StepRecord* step, ColumnPlan plan, const T* x, Wide<T>* groups) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, shared, kElementThreads);
  for_column_groups(plan, [&](const ColumnPlace& place, int64_t group, int64_t begin, int64_t end) {
    W mean[1], squares[1];
    const auto value = [&](int64_t row, W* v) { v[0] = widen(x[row * plan.columns + place.column]); };
    sum_group<1>(place, begin, end, shared, value, mean);
    mean[0] *= W(1) / static_cast<W>(end - begin);
    const auto square = [&](int64_t row, W* v) {
      const W d = widen(x[row * plan.columns + place.column]) - mean[0];
      v[0] = d * d;
    };
    sum_group<1>(place, begin, end, shared, square, squares);
    if (!place.inside || place.lane != 0) return;
    groups[2 * group * plan.columns + place.column] = mean[0];
    groups[(2 * group + 1) * plan.columns + place.column] = squares[0];
  });
}

template <class W>
__device__ __forceinline__ W bessel(int64_t rows) {
  return rows > 1 ? static_cast<W>(rows) / static_cast<W>(rows - 1) : W(1);
}
template <class T, class W>
__device__ __forceinline__ void move_running(T* running, W batch, W momentum) {
  *running = narrow<T>(widen(*running) * (W(1) - momentum) + batch * momentum);
}

// Merges the groups' moments in order. g.mean and the other pointers of g receive the moments and the running moments;
// each may be null.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    merge_kernel(const StepRecord* step, ColumnPlan plan, Scratch<Wide<T>> s, BatchNormArguments<T> g) {
  using W = Wide<T>;
  if (stopped(step)) return;
  for (int64_t j = thread_in_grid(); j < plan.columns; j += threads_in_grid()) {
    W center = s.groups[j], squares = s.groups[plan.columns + j];
    for (int64_t b = 1; b < plan.groups; ++b) {
      const int64_t end = (b + 1) * plan.group_rows < plan.rows ? (b + 1) * plan.group_rows : plan.rows;
      const W before = static_cast<W>(b * plan.group_rows), after = static_cast<W>(end);
      const W part = (after - before) / after, apart = s.groups[2 * b * plan.columns + j] - center;
      center += apart * part;
      squares += s.groups[(2 * b + 1) * plan.columns + j] + apart * apart * (before * part);
    }
    const W variance = squares * (W(1) / static_cast<W>(plan.rows)), momentum = static_cast<W>(g.momentum);
    s.mean[j] = center;
    s.variance[j] = variance;
    if (g.mean) g.mean[j] = narrow<T>(center);
    if (g.variance) g.variance[j] = narrow<T>(variance);
    if (g.running_mean) move_running(g.running_mean + j, center, momentum);
    if (g.running_var) move_running(g.running_var + j, variance * bessel<W>(plan.rows), momentum);
  }
}

// y = (x - mean) / sqrt(variance + eps) * weight + bias.
template <bool kBlock, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    normalize_kernel(const StepRecord* step, BatchNormArguments<T> g, const Wide<T>* mean, const Wide<T>* variance) {
  using W = Wide<T>;
  if (stopped(step)) return;
  const RowTeam<kBlock> team;
  const W eps = static_cast<W>(g.eps);
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const int64_t at = row * g.columns;
    for_elements<1, 1, 4>(team.me, team.all, static_cast<int>(g.columns), Arrays<T>{{g.x + at}, {g.y + at}},
                          [&](int j, const W* v, W* y) {
                            W factor = W(1) / square_root<W>(variance[j] + eps);
                            if (g.weight) factor *= widen(g.weight[j]);
                            y[0] = (v[0] - mean[j]) * factor;
                            if (g.bias) y[0] += widen(g.bias[j]);
                          });
  }
}

// Computes each group's sums of dy, and of dy (x - mean).
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    slopes_kernel(const StepRecord* step, ColumnPlan plan, BatchNormVjpArguments<T> g, const Wide<T>* mean,
                  Wide<T>* groups) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, shared, 2 * kElementThreads);
  for_column_groups(plan, [&](const ColumnPlace& place, int64_t group, int64_t begin, int64_t end) {
    W sums[2];
    const W center = place.inside ? mean[place.column] : W(0);
    const auto term = [&](int64_t row, W* v) {
      const int64_t at = row * plan.columns + place.column;
      v[0] = widen(g.dy[at]);
      v[1] = v[0] * (widen(g.x[at]) - center);
    };
    sum_group<2>(place, begin, end, shared, term, sums);
    if (!place.inside || place.lane != 0) return;
    groups[2 * group * plan.columns + place.column] = sums[0];
    groups[(2 * group + 1) * plan.columns + place.column] = sums[1];
  });
}

// Computes dbias, dweight, and the numbers of each column that dx needs.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    coefficients_kernel(const StepRecord* step, ColumnPlan plan, BatchNormVjpArguments<T> g, Scratch<Wide<T>> s,
                        const Wide<T>* variance, bool summed) {
  using W = Wide<T>;
  if (stopped(step)) return;
  for (int64_t j = thread_in_grid(); j < plan.columns; j += threads_in_grid()) {
    W sum = 0, slope = 0;
    for (int64_t b = 0; summed && b < plan.groups; ++b) {
      sum += s.groups[2 * b * plan.columns + j];
      slope += s.groups[(2 * b + 1) * plan.columns + j];
    }
    const W r = W(1) / square_root<W>(variance[j] + static_cast<W>(g.eps)), each = W(1) / static_cast<W>(plan.rows);
    if (g.dbias) g.dbias[j] = narrow<T>(sum);
    if (g.dweight) g.dweight[j] = narrow<T>(slope * r);
    s.factor[j] = g.weight ? r * widen(g.weight[j]) : r;
    s.shift[j] = g.training ? sum * each : W(0);
    s.tilt[j] = g.training ? slope * each * r * r : W(0);
  }
}

template <bool kBlock, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    dx_kernel(const StepRecord* step, BatchNormVjpArguments<T> g, Scratch<Wide<T>> s, const Wide<T>* mean) {
  using W = Wide<T>;
  if (stopped(step)) return;
  const RowTeam<kBlock> team;
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const int64_t at = row * g.columns;
    const Arrays<T> a{{g.dy + at, g.x + at}, {g.dx + at}};
    for_elements<2, 1, 2>(team.me, team.all, static_cast<int>(g.columns), a, [&](int j, const W* v, W* dx) {
      W d = v[0];
      if (g.training) d = d - s.shift[j] - (v[1] - mean[j]) * s.tilt[j];
      dx[0] = d * s.factor[j];
    });
  }
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    update_kernel(const StepRecord* step, BatchNormUpdateArguments<T> g) {
  using W = Wide<T>;
  if (stopped(step)) return;
  const W momentum = static_cast<W>(g.momentum);
  for (int64_t j = thread_in_grid(); j < g.columns; j += threads_in_grid()) {
    move_running(g.running_mean + j, widen(g.mean[j]), momentum);
    move_running(g.running_var + j, widen(g.variance[j]) * bessel<W>(g.rows), momentum);
  }
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) zero_kernel(const StepRecord* step, T* a, T* b, int64_t n) {
  if (stopped(step)) return;
  for (int64_t j = thread_in_grid(); j < n; j += threads_in_grid()) {
    if (a) a[j] = narrow<T>(0);
    if (b) b[j] = narrow<T>(0);
  }
}

// Launches the kernels of one call one after another, and stops at the first that fails.
struct Launches {
  const OpCall& call;
  const CudaQueue& queue;
  int code = 0;

  template <class... P, class... A>
  void operator()(void (*kernel)(const StepRecord*, P...), unsigned blocks, unsigned threads, A... arguments) noexcept {
    if (code != 0) return;
    const StepRecord* step = call.step;
    code = LAUNCH(kernel, dim3(blocks), dim3(threads), 0, stream_of(queue), step, arguments...);
  }
};

template <class T>
void queue_moments(Launches& launch, const ColumnPlan& plan, const Scratch<Wide<T>>& s,
                   const BatchNormArguments<T>& g) noexcept {
  launch(moments_kernel<T>, column_blocks(plan, launch.queue.processors), kElementThreads, plan, g.x, s.groups);
  launch(merge_kernel<T>, blocks_for(plan.columns, launch.queue.processors), kElementThreads, plan, s, g);
}

template <class T>
int forward(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  const bool inference = find_attribute(*call.op, "training") < 0;
  BatchNormArguments<T> g;
  g.rows = x.rows(), g.columns = x.columns(), g.x = x.as<const T>(), g.y = operand(call, "y").as<T>();
  g.weight = operand(call, "weight").as<const T>(), g.bias = operand(call, "bias").as<const T>();
  g.running_mean = operand(call, inference ? "mean" : "running_mean").as<T>();
  g.running_var = operand(call, inference ? "variance" : "running_var").as<T>();
  if (!inference) g.mean = operand(call, "mean").as<T>(), g.variance = operand(call, "variance").as<T>();
  g.training = flag(call, "training"), g.momentum = real(call, "momentum"), g.eps = real(call, "eps");
  if (g.rows == 0 || g.columns == 0) return 0;
  const ColumnPlan plan(g.rows, g.columns);
  const Scratch<Wide<T>> s(queue.scratch, plan);
  Launches launch{call, queue};
  if (g.training) queue_moments<T>(launch, plan, s, g);
  const Wide<T>* mean = g.training ? s.mean : g.running_mean;
  const Wide<T>* variance = g.training ? s.variance : g.running_var;
  const RowPlan rows = row_plan<T>(g.rows, g.columns, queue.processors, 0, false);
  launch(rows.block ? normalize_kernel<true, T> : normalize_kernel<false, T>, rows.blocks, rows.threads, g, mean,
         variance);
  return launch.code;
}

template <class T>
int vjp(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  BatchNormVjpArguments<T> g;
  g.rows = x.rows(), g.columns = x.columns(), g.x = x.as<const T>(), g.dy = operand(call, "dy").as<const T>();
  g.weight = operand(call, "weight").as<const T>();
  g.mean = operand(call, "mean").as<const T>(), g.variance = operand(call, "variance").as<const T>();
  g.dx = operand(call, "dx").as<T>(), g.dweight = operand(call, "dweight").as<T>(),
  g.dbias = operand(call, "dbias").as<T>();
  g.training = flag(call, "training"), g.eps = real(call, "eps");
  if (g.columns == 0) return 0;
  const ColumnPlan plan(g.rows, g.columns);
  const Scratch<Wide<T>> s(queue.scratch, plan);
  Launches launch{call, queue};
  const unsigned blocks = blocks_for(g.columns, queue.processors);
  if (g.rows == 0) {
    launch(zero_kernel<T>, blocks, kElementThreads, g.dweight, g.dbias, g.columns);
    return launch.code;
  }
  const Wide<T>*mean = g.mean, *variance = g.variance;
  if (!mean) {
    BatchNormArguments<T> again;
    again.rows = g.rows, again.columns = g.columns, again.x = g.x;
    queue_moments<T>(launch, plan, s, again);
    mean = s.mean, variance = s.variance;
  }
  const bool summed = g.training || g.dweight || g.dbias;
  if (summed) launch(slopes_kernel<T>, column_blocks(plan, queue.processors), kElementThreads, plan, g, mean, s.groups);
  launch(coefficients_kernel<T>, blocks, kElementThreads, plan, g, s, variance, summed);
  const RowPlan rows = row_plan<T>(g.rows, g.columns, queue.processors, 0, false);
  if (g.dx) launch(rows.block ? dx_kernel<true, T> : dx_kernel<false, T>, rows.blocks, rows.threads, g, s, mean);
  return launch.code;
}

template <class T>
int update(const OpCall& call, const CudaQueue& queue) noexcept {
  BatchNormUpdateArguments<T> g;
  const Tensor& mean = operand(call, "running_mean");
  g.rows = integer(call, "rows"), g.columns = mean.elements(), g.running_mean = mean.as<T>();
  g.running_var = operand(call, "running_var").as<T>(), g.momentum = real(call, "momentum");
  g.mean = operand(call, "mean").as<const T>(), g.variance = operand(call, "variance").as<const T>();
  if (g.columns == 0) return 0;
  Launches launch{call, queue};
  launch(update_kernel<T>, blocks_for(g.columns, queue.processors), kElementThreads, g);
  return launch.code;
}

size_t scratch(const OpCall& call, const CudaQueue&) noexcept {
  const Tensor& x = operand(call, "x");
  const ColumnPlan plan(x.rows(), x.columns());
  return x.dtype == Dtype::kFloat32 ? Scratch<float>::bytes(plan) : Scratch<double>::bytes(plan);
}

template <CudaRun kFloat, CudaRun kDouble>
CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"x", "dy", "weight", "bias", "running_mean", "running_var", "y", "mean",
                                     "variance", "dx", "dweight", "dbias"});
  return known && fits_int(call[0].columns()) ? by_real_cuda<kFloat, kDouble>(call) : nullptr;
}

}  // namespace

extern const CudaKernel batch_norm_cuda_kernels[] = {
    {.op = "batch_norm", .choose = choose<forward<float>, forward<double>>, .scratch = scratch},
    {.op = "batch_norm_vjp", .choose = choose<vjp<float>, vjp<double>>, .scratch = scratch},
    {.op = "batch_norm_inference", .choose = choose<forward<float>, forward<double>>, .scratch = scratch},
    {.op = "batch_norm_update", .choose = choose<update<float>, update<double>>},
};
extern const size_t batch_norm_cuda_kernel_count = std::size(batch_norm_cuda_kernels);

}  // namespace gradring
