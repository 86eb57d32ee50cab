#include "ops/cross_entropy/kernels.h"
#include "ops/loss/loss_blocks.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// The form of the targets: labels, or distributions over the classes, which are given or made of labels by smoothing.
enum class Form { kLabel, kSpread };

// Numbers of a block of rows, collected row by row. finish takes all logarithms of a block together. `a` is defined in
// cross_entropy.h.
template <class T>
struct Block {
  T sums[kRowBlock];     // per row, the sum of exp(x - max); 1 in bad rows
  T offsets[kRowBlock];  // per row, the sum of a (max - x); 0 in bad rows
  T shares[kRowBlock];   // per row, the sum of a; not set for kLabel
  T factors[kRowBlock];  // the factor of each row's loss, where there are weights
  LossTotals totals{};
};

template <class T>
void start_sums(T* sums, int64_t classes) noexcept {
  if (!sums) return;
  for (int64_t j = 0; j < classes; ++j) sums[j] = 0;
}

template <class T>
GRADRING_INLINE bool weighted(const CrossEntropyArguments<T>& g) noexcept {
  return g.weights || (g.class_weights && !g.soft);
}

// The weight of a row in the mean.
template <class T>
GRADRING_INLINE T weight_of(const CrossEntropyArguments<T>& g, int64_t row) noexcept {
  const T weight = g.weights ? g.weights[row] : T(1);
  if (!g.class_weights || g.soft) return weight;
  const int64_t label = g.labels[row];
  const bool good = static_cast<uint64_t>(label) < static_cast<uint64_t>(g.classes);
  return good ? weight * g.class_weights[label] : T(0);
}

// Not inlined, like long_rows, because copies for each number of vectors would fill the library.
template <Form F, class T>
[[gnu::noinline]] void finish(const CrossEntropyArguments<T>& g, Block<T>& block, int64_t begin, int64_t end) noexcept {
  const int64_t count = end - begin;
  for (int64_t r = count; r < kRowBlock; ++r) block.sums[r] = 1, block.offsets[r] = 0, block.shares[r] = 0;
  T losses[kRowBlock];
  for (int64_t r = 0; r < kRowBlock; r += kWidth<T>) {
    Vec<T> logs = math::log<T>(load<T>(block.sums + r));
    if constexpr (F != Form::kLabel) logs *= load<T>(block.shares + r);
    store<T>(losses + r, logs + load<T>(block.offsets + r));
  }
  if (weighted<T>(g)) {
    T weights[kRowBlock] = {};
    for (int64_t r = 0; r < count; ++r) {
      weights[r] = weight_of<T>(g, begin + r);
      if (!good_weight<T>(weights[r]) && block.totals.bad_weight < 0) block.totals.bad_weight = begin + r;
      // A row of weight 0 adds 0 even if its loss is infinite.
      losses[r] = block.factors[r] == 0 ? T(0) : losses[r] * block.factors[r];
    }
    block.totals.weight = sum_of_block<T>(weights);
  }
  block.totals.loss = sum_of_block<T>(losses);
  if (!g.losses) return;
  for (int64_t r = 0; r < count; ++r) g.losses[begin + r] = losses[r];
}

// Returns the label of a row, or -1 if it is out of range, and records bad rows. A soft target's label is its likeliest
// class.
template <Form F, class T>
GRADRING_INLINE int64_t note_label(const CrossEntropyArguments<T>& g, Block<T>& block, int64_t row) noexcept {
  int64_t label = 0;
  if (F == Form::kSpread && g.soft) {
    const T* t = g.soft + row * g.classes;
    bool good = true;
    double sum = 0;
    for (int64_t j = 0; j < g.classes; ++j) {
      good = good && t[j] >= 0 && t[j] <= 1;
      sum += static_cast<double>(t[j]);
      label = t[j] > t[label] ? j : label;
    }
    good = good && sum >= 1 - kSumError && sum <= 1 + kSumError;
    if (!good && block.totals.bad_row < 0) block.totals.bad_row = row;
    return g.classes > 0 ? label : -1;  // a bad soft target keeps its label: its loss need not be 0
  } else {
    label = g.labels[row];
    if (static_cast<uint64_t>(label) < static_cast<uint64_t>(g.classes)) return label;
    if (block.totals.bad_row < 0) block.totals.bad_row = row;
    return -1;
  }
}

// The factor of a row's loss that is not part of `a`.
template <Form F, class T>
GRADRING_INLINE T factor_of(const CrossEntropyArguments<T>& g, int64_t row, int64_t label) noexcept {
  const T weight = g.weights ? g.weights[row] : T(1);
  if constexpr (F == Form::kLabel) return g.class_weights ? weight * g.class_weights[label] : weight;
  return weight;
}

template <Form F, class T>
GRADRING_INLINE T scale_of(const CrossEntropyArguments<T>& g, int64_t row, T factor) noexcept {
  const T scale = g.dlosses ? g.scale * g.dlosses[row] : g.scale;
  return g.weights || (F == Form::kLabel && g.class_weights) ? scale * factor : scale;
}

// The factors of a smoothed target distribution, which are the same in all rows.
template <class T>
struct Spread {
  T share;   // the factor of the target itself
  T spread;  // what every class gets in addition
};

template <class T>
GRADRING_INLINE Spread<T> spread_of(const CrossEntropyArguments<T>& g) noexcept {
  return {T(1) - g.smoothing, g.smoothing / static_cast<T>(g.classes)};
}

template <Form F, class T, int N>
LossTotals short_rows(const CrossEntropyArguments<T>& g, int64_t begin, int64_t end, T* sums) noexcept {
  using Int = typename Float<T>::Int;
  constexpr int W = kWidth<T>;
  const int64_t tail = g.classes - (N - 1) * W;
  const IntVec<T> valid = first_elements<T>(tail);
  const Spread<T> spread = spread_of<T>(g);
  Row<T, N> columns{}, each{}, own{};  // a = each + own * target
  if constexpr (F != Form::kLabel) {
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) own.v[k] = broadcast<T>(T(1));
    if (g.class_weights) own = load_row<T, N>(g.class_weights, tail);
    own.v[N - 1] = valid ? own.v[N - 1] : Vec<T>{};
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) each.v[k] = own.v[k] * spread.spread, own.v[k] *= spread.share;
  }
  Block<T> block;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t label = note_label<F, T>(g, block, i);
    const T* x = g.logits + i * g.classes;
    const Row<T, N> row = load_row<T, N>(x, tail);
    const Vec<T> max = row_max<T, N>(row, valid);
    const Row<T, N> e = row_exp<T, N>(row, max, valid);
    const Vec<T> sum = row_sum<T, N>(e);
    const bool good = label >= 0;
    const T picked = good ? x[label] : T(0);
    Row<T, N> a{};
    T share = 1;
    block.sums[i - begin] = good ? sum[0] : T(1);
    if constexpr (F == Form::kLabel) {
      block.offsets[i - begin] = good ? max[0] - picked : T(0);
    } else {
      Row<T, N> offset, target{};
      if (g.soft) target = load_row<T, N>(g.soft + i * g.classes, tail);
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) {
        const IntVec<T> here = element_numbers<T>() == broadcast_bits<T>(static_cast<Int>(label - k * W));
        if (!g.soft) target.v[k] = here ? broadcast<T>(T(1)) : Vec<T>{};
        a.v[k] = each.v[k] + own.v[k] * target.v[k];
        // Where a is 0, the logit may be -inf: the term is then 0, not NaN.
        offset.v[k] = a.v[k] == Vec<T>{} ? Vec<T>{} : a.v[k] * (max - row.v[k]);
      }
      share = row_sum<T, N>(a)[0];
      block.offsets[i - begin] = good ? row_sum<T, N>(offset)[0] : T(0);
      block.shares[i - begin] = good ? share : T(0);
    }
    // Without a branch: no processor predicts which answers are right, and a wrong guess drops the rows that it has begun.
    IntVec<T> earlier{};
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) {
      const IntVec<T> before = element_numbers<T>() < broadcast_bits<T>(static_cast<Int>(label - k * W));
      earlier |= before & (row.v[k] == max);
    }
    block.totals.correct += static_cast<int64_t>(good) & static_cast<int64_t>(picked == max[0]) &
                            static_cast<int64_t>(!any_element<T>(earlier));
    const T factor = good ? factor_of<F, T>(g, i, label) : T(0);
    block.factors[i - begin] = factor;
    if (!g.dlogits) continue;
    const T scale = good ? scale_of<F, T>(g, i, factor) : T(0);
    const Vec<T> weight = broadcast<T>(good ? scale * share / sum[0] : T(0));
    Row<T, N> d;
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) {
      d.v[k] = good ? e.v[k] * weight : Vec<T>{};  // a selection, because a bad row of infinities must not give NaN
      if constexpr (F == Form::kLabel) {
        const IntVec<T> here = element_numbers<T>() == broadcast_bits<T>(static_cast<Int>(label - k * W));
        d.v[k] -= here ? broadcast<T>(scale) : Vec<T>{};
      } else {
        d.v[k] -= good ? a.v[k] * scale : Vec<T>{};
      }
      columns.v[k] += d.v[k];
    }
    store_row<T, N>(g.dlogits + i * g.classes, d, tail);
  }
  if (sums) store_row<T, N>(sums, columns, tail);
  finish<F, T>(g, block, begin, end);
  return block.totals;
}

// What `a` of a row is made of: copies, because the compiler reads the arguments again after each store.
template <class T>
struct RowTarget {
  Spread<T> spread;
  const T* soft;  // of this row, or null
  const T* class_weights;

  // Returns `a` for columns j to j + n, and 0 beyond, without the label's own share.
  GRADRING_INLINE Vec<T> columns(int64_t j, int64_t n) const noexcept {
    Vec<T> a = broadcast<T>(spread.spread);
    if (soft) a += load_up_to<T>(soft + j, n) * spread.share;
    if (class_weights) a *= load_up_to<T>(class_weights + j, n);
    return n < kWidth<T> ? (first_elements<T>(n) ? a : Vec<T>{}) : a;
  }
};

template <Form F, class T>
[[gnu::noinline]] LossTotals long_rows(const CrossEntropyArguments<T>& g, int64_t begin, int64_t end,
                                       T* sums) noexcept {
  Block<T> block;
  start_sums<T>(sums, g.classes);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t label = note_label<F, T>(g, block, i);
    const T* x = g.logits + i * g.classes;
    T* d = g.dlogits ? g.dlogits + i * g.classes : nullptr;
    if (label < 0) {
      block.sums[i - begin] = 1, block.offsets[i - begin] = 0, block.shares[i - begin] = 0,
                     block.factors[i - begin] = 0;
      for (int64_t j = 0; d && j < g.classes; ++j) d[j] = 0;
      continue;
    }
    const Vec<T> max = long_row_max<T>(x, g.classes);
    const T picked = x[label];
    bool correct = picked == max[0];
    for (int64_t j = 0; correct && j < label; ++j) correct = x[j] != picked;
    block.totals.correct += correct;
    const RowTarget<T> target{spread_of<T>(g), g.soft ? g.soft + i * g.classes : nullptr, g.class_weights};
    T share = 1, own = 1;  // the sum of a, and the part of it that only the label has
    if constexpr (F == Form::kLabel) {
      block.offsets[i - begin] = max[0] - picked;
    } else {
      Vec<T> shares{}, offsets{};
      for_vectors<T>(
          g.classes, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
            const Vec<T> a = target.columns(j, n);
            shares += a;
            offsets += a == Vec<T>{} ? Vec<T>{} : a * (max - load_up_to<T>(x + j, n));
          });
      share = horizontal_sum<T>(shares)[0];
      T offset = horizontal_sum<T>(offsets)[0];
      if (!g.soft) {
        own = spread_of<T>(g).share * (g.class_weights ? g.class_weights[label] : T(1));
        share += own;
        offset += own == 0 ? T(0) : own * (max[0] - picked);
      }
      block.offsets[i - begin] = offset;
      block.shares[i - begin] = share;
    }
    const T factor = factor_of<F, T>(g, i, label);
    block.factors[i - begin] = factor;
    const T scale = scale_of<F, T>(g, i, factor);
    // No later term needs the logits, so the gradient may overwrite them.
    const Vec<T> sum = long_row_exp<T>(x, d, g.classes, max);
    block.sums[i - begin] = sum[0];
    if (!d) continue;
    const Vec<T> weight = broadcast<T>(F == Form::kLabel ? scale : scale * share) / sum;
    for_vectors<T>(
        g.classes, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          Vec<T> v = load_up_to<T>(d + j, n) * weight;
          if constexpr (F != Form::kLabel) v -= target.columns(j, n) * scale;
          store_up_to<T>(d + j, v, n);
          if (sums) store_up_to<T>(sums + j, load_up_to<T>(sums + j, n) + v, n);
        });
    if (F == Form::kSpread && g.soft) continue;
    d[label] -= scale * own;
    if (sums) sums[label] -= scale * own;
  }
  finish<F, T>(g, block, begin, end);
  return block.totals;
}

template <Form F, class T>
void run_form(const Lane& lane, const CrossEntropyArguments<T>& g) noexcept {
  for_loss_blocks<T>(lane, g.rows, g.classes, g.column_sums, g.totals, [&](int64_t begin, int64_t end, T* sums) {
    switch ((g.classes + kWidth<T> - 1) / kWidth<T>) {
      case 1: return short_rows<F, T, 1>(g, begin, end, sums);
      case 2: return short_rows<F, T, 2>(g, begin, end, sums);
      case 3: return short_rows<F, T, 3>(g, begin, end, sums);
      case 4: return short_rows<F, T, 4>(g, begin, end, sums);
      default: return long_rows<F, T>(g, begin, end, sums);
    }
  });
}

template <class T>
void run(const Lane& lane, const CrossEntropyArguments<T>& given) noexcept {
  CrossEntropyArguments<T> g = given;
  if (g.divide) {
    g.scale = weighted_scale<T>(g.scale, total_weight<T>(g.rows, [&](int64_t row) { return weight_of<T>(g, row); }));
  }
  if (g.soft || g.smoothing != 0) return run_form<Form::kSpread, T>(lane, g);
  run_form<Form::kLabel, T>(lane, g);
}

}  // namespace

extern const CrossEntropyKernel cross_entropy_kernel;
const CrossEntropyKernel cross_entropy_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
