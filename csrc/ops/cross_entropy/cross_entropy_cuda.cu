// Cross-entropy of class numbers or distributions, with its gradient, the gradient's column sums, and the totals: see
// cross_entropy.h. A row is read from memory once where it fits into shared memory, and a small second kernel adds up what the
// blocks have summed.
// Bytes per element: one read and one write of sizeof(T), for distributions three reads more; with column sums, those of a
// block's row of sums, which stay in cache. FLOPs per element: about 45.
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

struct Smaller {
  __device__ __forceinline__ int operator()(int a, int b) const { return a < b ? a : b; }
};

// The weight of a row in the mean. Class weights are part of it if the target is one class.
template <class T>
struct CrossEntropyWeight {
  const T* weights;
  const T* class_weights;
  Labels labels;
  int64_t classes;

  __device__ __forceinline__ Wide<T> operator()(int64_t row) const {
    const Wide<T> weight = weights ? widen(weights[row]) : Wide<T>(1);
    if (!class_weights) return weight;
    const int64_t label = label_of(labels, row);
    return label >= 0 && label < classes ? weight * widen(class_weights[label]) : Wide<T>(0);
  }
};
template <class T>
__host__ __device__ CrossEntropyWeight<T> weight_of(const CrossEntropyArguments<T>& g) {
  return {g.weights, g.soft ? nullptr : g.class_weights, g.labels, g.classes};
}

// The target distribution of a row, a of cross_entropy.h, one class at a time.
template <class T>
struct Target {
  using W = Wide<T>;
  const T* class_weights;
  W share, spread;  // the probabilities that smoothing gives to the target itself, and to each class in addition
  int64_t label;    // -1: the target is a distribution

  __device__ Target(const CrossEntropyArguments<T>& g, int64_t row_label)
      : class_weights(g.class_weights),
        share(W(1) - widen(g.smoothing)),
        spread(widen(g.smoothing) / static_cast<W>(g.classes)),
        label(g.soft ? -1 : row_label) {}

  // soft: the class's probability, if the target is a distribution.
  __device__ __forceinline__ W at(int j, W soft) const {
    const W own = label >= 0 ? j == label ? share : W(0) : soft * share;
    return class_weights ? (spread + own) * widen(class_weights[j]) : spread + own;
  }
};

// The first likeliest class of a distribution, and whether all its elements are probabilities whose sum is 1.
template <class Team, class T>
__device__ __forceinline__ int64_t likeliest(const Team& team, const T* soft, int classes, Wide<T>* parts, int* places,
                                             bool* good) {
  using W = Wide<T>;
  constexpr int kNone = 0x7fffffff;
  W most = -Float<W>::kInfinity;
  int place = kNone;  // a thread takes the classes in ascending order
  bool wrong = false;
  W sum = 0;
  for_elements<1, 0, 4>(team.me, team.all, classes, Arrays<T>{{soft}, {}}, [&](int j, const W* v, W*) {
    wrong |= !(v[0] >= W(0) && v[0] <= W(1));
    sum += v[0];
    if (v[0] > most) most = v[0], place = j;
  });
  const W top = team.reduce(most, parts, Larger{});
  place = team.reduce(most == top ? place : kNone, places, Smaller{});
  sum = team.reduce(sum, parts, Plus{});
  *good = !team.any(wrong) && sum >= W(1 - kSumError) && sum <= W(1 + kSumError);
  return place == kNone ? 0 : place;
}

// kGeneral: the target is a distribution, or is smoothed into one.
template <bool kBlock, bool kCached, bool kGeneral, class T>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    cross_entropy_kernel(const StepRecord* step, CrossEntropyArguments<T> g, LossScratch<T> scratch) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, parts, kMostWarps);
  SHARED_ARRAY(int, places, kMostWarps);
  DYNAMIC_SHARED(T, memory);
  const RowTeam<kBlock> team;
  const int classes = static_cast<int>(g.classes);
  const TeamSums<kBlock, 1, W> sums(team, scratch.sums, reinterpret_cast<W*>(memory), g.column_sums ? classes : 0);
  const W all_scale = whole_scale(g.scale, scratch.weights);
  const bool weighted = g.weights || (g.class_weights && !g.soft);
  LossTotals totals;
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const T* x = g.logits + row * g.classes;
    const T* soft = kGeneral && g.soft ? g.soft + row * g.classes : nullptr;
    T* d = g.dlogits ? g.dlogits + row * g.classes : nullptr;
    bool good = true;
    const int64_t label = soft ? likeliest(team, soft, classes, parts, places, &good) : label_of(g.labels, row);
    if (!soft) good = label >= 0 && label < g.classes;
    if (!good && totals.bad_row < 0) totals.bad_row = row;
    if (weighted) note_weight(&totals, row, weight_of(g)(row));
    if ((!soft && !good) || classes == 0) {
      if (team.me == 0 && g.losses) g.losses[row] = narrow<T>(W(0));
      if (d)
        for_elements<0, 1, 1>(team.me, team.all, classes, Arrays<T>{{}, {d}}, [&](int, const W*, W* v) { v[0] = 0; });
      continue;
    }
    // If labels are smoothed, the target includes the weights of the classes.
    W factor = 1;
    if (weighted) factor = !kGeneral ? weight_of(g)(row) : g.weights ? widen(g.weights[row]) : W(1);
    T* cache = nullptr;
    if constexpr (kCached) cache = memory + reinterpret_cast<uintptr_t>(x) % 16 / sizeof(T);
    W most = -Float<W>::kInfinity;
    for_elements<1, kCached ? 1 : 0, 4>(team.me, team.all, classes, Arrays<T>{{x}, {cache}},
                                        [&](int, const W* v, W* kept) {
                                          most = Larger{}(v[0], most);
                                          if constexpr (kCached) kept[0] = v[0];
                                        });
    const W picked = widen(x[label]);
    // After this reduction, every thread sees all that the others wrote to `cache`.
    most = team.reduce(most, parts, Larger{});
    const T* from = kCached ? cache : x;
    const Target<T> target(g, label);
    W sum = 0, share = 0, offset = 0;  // offset: the sum of a (max - x)
    bool earlier = false;
    const auto look = [&](int j, W v, W probability) {
      sum += math::exp<W>(v - most);
      earlier |= j < label && v == picked;
      if constexpr (kGeneral) {
        const W a = target.at(j, probability);
        share += a;
        offset += a == W(0) ? W(0) : a * (most - v);  // where a is 0, the logit may be -inf
      }
    };
    if (soft) {
      for_elements<2, 0, 2>(team.me, team.all, classes, Arrays<T>{{from, soft}, {}},
                            [&](int j, const W* v, W*) { look(j, v[0], v[1]); });
    } else {
      for_elements<1, 0, 4>(team.me, team.all, classes, Arrays<T>{{from}, {}},
                            [&](int j, const W* v, W*) { look(j, v[0], W(0)); });
    }
    sum = team.reduce(sum, parts, Plus{});
    earlier = team.any(earlier);
    W loss;
    if constexpr (kGeneral) {
      share = team.reduce(share, parts, Plus{});
      offset = team.reduce(offset, parts, Plus{});
      loss = math::log<W>(sum) * share + offset;
    } else {
      share = 1;
      loss = math::log<W>(sum) + (most - picked);
    }
    // A row of weight 0 adds 0 even if its loss is infinite.
    if (weighted) loss = factor == W(0) ? W(0) : loss * factor;
    totals.loss += static_cast<double>(loss);
    totals.correct += picked == most && !earlier;
    if (team.me == 0 && g.losses) g.losses[row] = narrow<T>(loss);
    if (!d) continue;
    const W scale = (g.dlosses ? all_scale * widen(g.dlosses[row]) : all_scale) * factor;
    const W weight = scale * share / sum;
    team.sync();  // every thread has read x[label]
    const auto slope_of = [&](int j, W v, W probability) {
      const W a = kGeneral ? target.at(j, probability) * scale : j == label ? scale : W(0);
      const W slope = math::exp<W>(v - most) * weight - a;
      if (g.column_sums) sums.add(0, j, slope);
      return slope;
    };
    if (soft) {
      for_elements<2, 1, 2>(team.me, team.all, classes, Arrays<T>{{from, soft}, {d}},
                            [&](int j, const W* v, W* slope) { slope[0] = slope_of(j, v[0], v[1]); });
    } else {
      for_elements<1, 1, 4>(team.me, team.all, classes, Arrays<T>{{from}, {d}},
                            [&](int j, const W* v, W* slope) { slope[0] = slope_of(j, v[0], W(0)); });
    }
    // For the next row, other threads may write to the sums and to `cache`, which this thread has read.
    if (g.column_sums || kCached) team.sync();
  }
  if (g.column_sums) sums.finish();
  store_totals(team, scratch.totals, totals);
}

template <bool kGeneral, class T>
auto kernel_of(const RowPlan& plan) noexcept {
  return !plan.block   ? cross_entropy_kernel<false, false, kGeneral, T>
         : plan.cached ? cross_entropy_kernel<true, true, kGeneral, T>
                       : cross_entropy_kernel<true, false, kGeneral, T>;
}

bool is_soft(const OpCall& call) noexcept { return (only(operand(call, "target").dtype) & kClassNumberDtypes) == 0; }
bool is_weighted(const OpCall& call) noexcept {
  return operand(call, "sample_weight") || (operand(call, "class_weight") && !is_soft(call));
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
  if (is_soft(call)) {
    g.soft = target.as<const T>();
  } else {
    g.labels = {target.data, target.dtype == Dtype::kInt64};
  }
  g.weights = operand(call, "sample_weight").as<const T>();
  g.class_weights = operand(call, "class_weight").as<const T>();
  g.smoothing = static_cast<T>(real(call, "label_smoothing")), g.divide = cuda_divides(call, is_weighted(call));
  g.losses = operand(call, "losses").as<T>(), g.dlogits = operand(call, "dx").as<T>();
  g.dlosses = operand(call, "dlosses").as<const T>();
  g.scale = static_cast<T>(cuda_loss_scale(call, g.rows, 1, is_weighted(call)));
  g.column_sums = operand(call, "column_sums").as<T>(), g.totals = operand(call, "totals").as<LossTotals>();
  const RowPlan plan = plan_of<T>(call, queue);
  const LossScratch<T> scratch(plan, g.rows, g.divide, queue.scratch);
  if (const int code = queue_weights(call, queue, g.rows, weight_of(g), scratch.weights); code != 0) return code;
  auto* const kernel = g.soft || g.smoothing != 0 ? kernel_of<true, T>(plan) : kernel_of<false, T>(plan);
  if (const cudaError_t code = allow_shared(kernel, plan.shared); code != cudaSuccess) return code;
  const StepRecord* step = call.step;
  const size_t shared = plan.shared > 16 ? plan.shared : 16;
  if (const int code =
          LAUNCH(kernel, dim3(plan.blocks), dim3(plan.threads), shared, stream_of(queue), step, g, scratch);
      code != 0) {
    return code;
  }
  return finish_loss<T>(call, queue, plan, g.classes, scratch, g.column_sums, g.totals);
}

template <class T>
size_t bytes_of(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  return LossScratch<T>::bytes(plan_of<T>(call, queue), x.rows(), x.columns(),
                               static_cast<bool>(operand(call, "column_sums")), cuda_divides(call, is_weighted(call)));
}
size_t scratch(const OpCall& call, const CudaQueue& queue) noexcept {
  return operand(call, "x").dtype == Dtype::kFloat32 ? bytes_of<float>(call, queue) : bytes_of<double>(call, queue);
}

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"x", "target", "dlosses", "dx", "losses", "column_sums", "totals", "sample_weight",
                                     "class_weight"}) &&
                     fits_int(operand(call, "x").columns());
  return known ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel cross_entropy_cuda_kernels[] = {{.op = "cross_entropy", .choose = choose, .scratch = scratch}};
extern const size_t cross_entropy_cuda_kernel_count = std::size(cross_entropy_cuda_kernels);

}  // namespace gradring
