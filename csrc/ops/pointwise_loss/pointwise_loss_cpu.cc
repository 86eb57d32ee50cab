#include "ops/loss/loss_blocks.h"
#include "ops/pointwise_loss/kernels.h"
#include "ops/pointwise_loss/point.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <PointwiseLoss K, class T>
GRADRING_INLINE IntVec<T> wrong(Vec<T> p, Vec<T> t) noexcept {
  if constexpr (K == PointwiseLoss::kMse) return ~IntVec<T>{};
  return (p > T(0)) ^ (t > T(0.5));
}

// Lanes whose target is no probability: NaN, or outside [0, 1].
template <PointwiseLoss K, class T>
GRADRING_INLINE IntVec<T> no_probability(Vec<T> t) noexcept {
  if constexpr (K == PointwiseLoss::kMse) return IntVec<T>{};
  return ~((t >= T(0)) & (t <= T(1)));
}

// The first of these rows with a target that is no probability.
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
  LossTotals totals;
  T losses[kRowBlock] = {};
  IntVec<T> bad{};
  for (int64_t j = 0; sums && j < g.columns; ++j) sums[j] = 0;
  for (int64_t i = begin; i < end; ++i) {
    const T* p = g.predictions + i * g.columns;
    const T* t = g.targets + i * g.columns;
    T* d = g.gradient ? g.gradient + i * g.columns : nullptr;
    const T scale = (g.dlosses ? g.scale * g.dlosses[i] : g.scale) * share;
    Vec<T> loss{};
    IntVec<T> mistakes{};
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> prediction = load_up_to<T>(p + j, n), target = load_up_to<T>(t + j, n);
          const Point<T> here = point<K, T>(prediction, target);
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
  totals.loss = sum_of_block<T>(losses);
  for (int64_t i = begin; g.losses && i < end; ++i) g.losses[i] = losses[i - begin];
  return totals;
}

// One column: the vectors run over the rows.
template <PointwiseLoss K, class T>
LossTotals one_column(const PointwiseLossArguments<T>& g, int64_t begin, int64_t end, T* sums) noexcept {
  LossTotals totals;
  T losses[kRowBlock] = {};
  Vec<T> column{};
  IntVec<T> mistakes{}, bad{};
  for_vectors<T>(
      end - begin, [&](int64_t r, int64_t n) __attribute__((always_inline)) {
        const Vec<T> prediction = load_up_to<T>(g.predictions + begin + r, n);
        const Vec<T> target = load_up_to<T>(g.targets + begin + r, n);
        const Point<T> here = point<K, T>(prediction, target);
        store_up_to<T>(losses + r, here.loss, n);
        mistakes += wrong<K, T>(prediction, target) & first_elements<T>(n);  // -1 each
        bad |= no_probability<K, T>(target) & first_elements<T>(n);
        if (!g.gradient) return;
        Vec<T> slope = here.slope * g.scale;
        if (g.dlosses) slope *= load_up_to<T>(g.dlosses + begin + r, n);
        store_up_to<T>(g.gradient + begin + r, slope, n);
        column += n == kWidth<T> ? slope : first_elements<T>(n) ? slope : Vec<T>{};
      });
  if (sums) *sums = horizontal_sum<T>(column)[0];
  if (any_element<T>(bad)) totals.bad_row = first_bad_row(g, begin, end);
  totals.correct = end - begin;
  for (int k = 0; k < kWidth<T>; ++k) totals.correct += mistakes[k];
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
void run(const Lane& lane, const PointwiseLossArguments<T>& g) noexcept {
  if (g.kind == PointwiseLoss::kMse) return run_kind<PointwiseLoss::kMse, T>(lane, g);
  run_kind<PointwiseLoss::kBinaryCrossEntropy, T>(lane, g);
}

}  // namespace

extern const PointwiseLossKernel pointwise_loss_kernel;
const PointwiseLossKernel pointwise_loss_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
