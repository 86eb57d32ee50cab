#include "ops/loss/loss_blocks.h"
#include "ops/pointwise_loss/kernels.h"
#include "ops/pointwise_loss/point.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Returns each element's loss, and the loss's derivative by the prediction.
template <PointwiseLoss K, class T>
GRADRING_INLINE Point<T> point_of(const PointwiseLossArguments<T>& g, Vec<T> p, Vec<T> t, Vec<T> pos_weight) noexcept {
  const bool weighted = g.pos_weights != nullptr;
  if (K == PointwiseLoss::kHuber && g.kind == PointwiseLoss::kMae) {
    return point<PointwiseLoss::kMae, T>(p, t, g.delta, weighted, pos_weight);
  }
  return point<K, T>(p, t, g.delta, weighted, pos_weight);
}

// The factor of a row's loss.
template <class T>
GRADRING_INLINE T weight_of(const PointwiseLossArguments<T>& g, int64_t row) noexcept {
  const T weight = g.weights ? g.weights[row] : T(1);
  if (!g.class_weights) return weight;
  return weight * (g.class_weights[0] + g.targets[row] * (g.class_weights[1] - g.class_weights[0]));
}

template <class T>
GRADRING_INLINE bool weighted(const PointwiseLossArguments<T>& g) noexcept {
  return g.weights || g.class_weights;
}

// Collects the weights of a block's rows (0 beyond the last), their sum, and the first that is not legal.
template <class T>
void note_weights(const PointwiseLossArguments<T>& g, int64_t begin, int64_t end, T (&weights)[kRowBlock],
                  LossTotals* totals) noexcept {
  for (int64_t r = 0; r < kRowBlock; ++r) weights[r] = begin + r < end ? weight_of<T>(g, begin + r) : T(0);
  totals->weight = sum_of_block<T>(weights);
  for (int64_t r = 0; begin + r < end && totals->bad_weight < 0; ++r) {
    if (!good_weight<T>(weights[r])) totals->bad_weight = begin + r;
  }
}

// Multiplies a block's losses by their weights. A row of weight 0 adds 0 even if its loss is infinite.
template <class T>
void weigh(const T (&weights)[kRowBlock], T (&losses)[kRowBlock]) noexcept {
  for (int64_t r = 0; r < kRowBlock; ++r) losses[r] = weights[r] == 0 ? T(0) : losses[r] * weights[r];
}

template <PointwiseLoss K, class T>
GRADRING_INLINE IntVec<T> wrong(Vec<T> p, Vec<T> t) noexcept {
  if constexpr (K != PointwiseLoss::kBinaryCrossEntropy) return ~IntVec<T>{};
  return (p > T(0)) ^ (t > T(0.5));
}

// A mask of the elements whose target is NaN, or outside [0, 1].
template <PointwiseLoss K, class T>
GRADRING_INLINE IntVec<T> no_probability(Vec<T> t) noexcept {
  if constexpr (K != PointwiseLoss::kBinaryCrossEntropy) return IntVec<T>{};
  return ~((t >= T(0)) & (t <= T(1)));
}

// The first of these rows that has a target outside [0, 1].
template <class T>
int64_t first_bad_row(const PointwiseLossArguments<T>& g, int64_t begin, int64_t end) noexcept {
  for (int64_t at = begin * g.columns; at < end * g.columns; ++at) {
    if (!(g.targets[at] >= 0 && g.targets[at] <= 1)) return at / g.columns;
  }
  return -1;
}

template <PointwiseLoss K, class T>
LossTotals wide_rows(const PointwiseLossArguments<T>& g, int64_t begin, int64_t end, T* sums) noexcept {
  const T share = T(1) / static_cast<T>(g.columns);
  LossTotals totals{};
  T losses[kRowBlock] = {}, weights[kRowBlock];
  if (weighted<T>(g)) note_weights<T>(g, begin, end, weights, &totals);
  IntVec<T> bad{};
  for (int64_t j = 0; sums && j < g.columns; ++j) sums[j] = 0;
  for (int64_t i = begin; i < end; ++i) {
    const T* p = g.predictions + i * g.columns;
    const T* t = g.targets + i * g.columns;
    T* d = g.gradient ? g.gradient + i * g.columns : nullptr;
    const T whole_scale = (g.dlosses ? g.scale * g.dlosses[i] : g.scale) * share;
    const T scale = weighted<T>(g) ? whole_scale * weights[i - begin] : whole_scale;
    Vec<T> loss{};
    IntVec<T> mistakes{};
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> prediction = load_up_to<T>(p + j, n), target = load_up_to<T>(t + j, n);
          const Vec<T> pos_weight = g.pos_weights ? load_up_to<T>(g.pos_weights + j, n) : Vec<T>{};
          const Point<T> here = point_of<K, T>(g, prediction, target, pos_weight);
          const bool whole = n == kWidth<T>;
          const IntVec<T> valid = whole ? ~IntVec<T>{} : first_elements<T>(n);
          loss += whole ? here.loss : valid ? here.loss : Vec<T>{};
          mistakes |= wrong<K, T>(prediction, target) & valid;
          bad |= no_probability<K, T>(target) & valid;
          if (!d) return;
          const Vec<T> slope = here.slope * scale;
          store_up_to<T>(d + j, slope, n);
          if (sums) store_up_to<T>(sums + j, load_up_to<T>(sums + j, n) + slope, n);
        });
    losses[i - begin] = horizontal_sum<T>(loss)[0] * share;
    totals.correct += !any_element<T>(mistakes);
  }
  if (any_element<T>(bad)) totals.bad_row = first_bad_row(g, begin, end);
  if (weighted<T>(g)) weigh<T>(weights, losses);
  totals.loss = sum_of_block<T>(losses);
  for (int64_t i = begin; g.losses && i < end; ++i) g.losses[i] = losses[i - begin];
  return totals;
}

// Handles predictions of one column: the vectors run over the rows.
template <PointwiseLoss K, class T>
LossTotals one_column(const PointwiseLossArguments<T>& g, int64_t begin, int64_t end, T* sums) noexcept {
  LossTotals totals{};
  T losses[kRowBlock] = {}, weights[kRowBlock];
  if (weighted<T>(g)) note_weights<T>(g, begin, end, weights, &totals);
  const Vec<T> pos_weight = g.pos_weights ? broadcast<T>(g.pos_weights[0]) : Vec<T>{};
  Vec<T> column{};
  IntVec<T> mistakes{}, bad{};
  for_vectors<T>(
      end - begin, [&](int64_t r, int64_t n) __attribute__((always_inline)) {
        const Vec<T> prediction = load_up_to<T>(g.predictions + begin + r, n);
        const Vec<T> target = load_up_to<T>(g.targets + begin + r, n);
        const Point<T> here = point_of<K, T>(g, prediction, target, pos_weight);
        store_up_to<T>(losses + r, here.loss, n);
        mistakes += wrong<K, T>(prediction, target) & first_elements<T>(n);  // a mask's element is -1 where it is set
        bad |= no_probability<K, T>(target) & first_elements<T>(n);
        if (!g.gradient) return;
        Vec<T> slope = here.slope * g.scale;
        if (g.dlosses) slope *= load_up_to<T>(g.dlosses + begin + r, n);
        if (weighted<T>(g)) slope *= load<T>(weights + r);
        store_up_to<T>(g.gradient + begin + r, slope, n);
        column += n == kWidth<T> ? slope : first_elements<T>(n) ? slope : Vec<T>{};
      });
  if (sums) *sums = horizontal_sum<T>(column)[0];
  if (any_element<T>(bad)) totals.bad_row = first_bad_row(g, begin, end);
  totals.correct = end - begin;
  for (int k = 0; k < kWidth<T>; ++k) totals.correct += mistakes[k];
  if (weighted<T>(g)) weigh<T>(weights, losses);
  totals.loss = sum_of_block<T>(losses);
  for (int64_t i = begin; g.losses && i < end; ++i) g.losses[i] = losses[i - begin];
  return totals;
}

template <PointwiseLoss K, class T>
void run_kind(const Lane& lane, const PointwiseLossArguments<T>& g) noexcept {
  for_loss_blocks<T>(lane, g.rows, g.columns, g.column_sums, g.totals, [&](int64_t begin, int64_t end, T* sums) {
    return g.columns == 1 ? one_column<K, T>(g, begin, end, sums) : wide_rows<K, T>(g, begin, end, sums);
  });
}

template <class T>
void run(const Lane& lane, const PointwiseLossArguments<T>& given) noexcept {
  PointwiseLossArguments<T> g = given;
  if (g.divide) {
    g.scale = weighted_scale<T>(g.scale, total_weight<T>(g.rows, [&](int64_t row) { return weight_of<T>(g, row); }));
  }
  switch (g.kind) {
    case PointwiseLoss::kMse: return run_kind<PointwiseLoss::kMse, T>(lane, g);
    case PointwiseLoss::kBinaryCrossEntropy: return run_kind<PointwiseLoss::kBinaryCrossEntropy, T>(lane, g);
    case PointwiseLoss::kMae:  // in the loops of the next: copies of their own would enlarge the library
    case PointwiseLoss::kHuber: return run_kind<PointwiseLoss::kHuber, T>(lane, g);
  }
}

}  // namespace

extern const PointwiseLossKernel pointwise_loss_kernel;
const PointwiseLossKernel pointwise_loss_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
