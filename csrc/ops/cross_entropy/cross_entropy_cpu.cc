#include "ops/cross_entropy/kernels.h"
#include "ops/loss/loss_blocks.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Notes about the rows of a block. The logarithms of all its sums are computed together after the last row.
template <class T>
struct Block {
  T sums[kRowBlock];     // the sums of exp(x - max); 1 in bad rows
  T offsets[kRowBlock];  // max - x[label]; 0 in bad rows
  LossTotals totals;
};

template <class T>
void start_sums(T* sums, int64_t classes) noexcept {
  if (!sums) return;
  for (int64_t j = 0; j < classes; ++j) sums[j] = 0;
}

template <class T>
void finish(const CrossEntropyArguments<T>& g, Block<T>& block, int64_t begin, int64_t end) noexcept {
  const int64_t count = end - begin;
  for (int64_t r = count; r < kRowBlock; ++r) block.sums[r] = 1, block.offsets[r] = 0;
  T losses[kRowBlock];
  for (int64_t r = 0; r < kRowBlock; r += kWidth<T>) {
    store<T>(losses + r, math::log<T>(load<T>(block.sums + r)) + load<T>(block.offsets + r));
  }
  block.totals.loss = sum_of_block<T>(losses);
  if (!g.losses) return;
  for (int64_t r = 0; r < count; ++r) g.losses[begin + r] = losses[r];
}

// Notes the label of a row, and returns it, or -1 if it is out of range.
template <class T>
GRADRING_INLINE int64_t note_label(const CrossEntropyArguments<T>& g, Block<T>& block, int64_t row) noexcept {
  const int64_t label = g.labels[row];
  if (static_cast<uint64_t>(label) < static_cast<uint64_t>(g.classes)) return label;
  if (block.totals.bad_row < 0) block.totals.bad_row = row;
  return -1;
}

template <class T, int N>
LossTotals short_rows(const CrossEntropyArguments<T>& g, int64_t begin, int64_t end, T* sums) noexcept {
  using Int = typename Float<T>::Int;
  constexpr int W = kWidth<T>;
  const int64_t tail = g.classes - (N - 1) * W;
  const IntVec<T> valid = first_elements<T>(tail);
  Row<T, N> columns{};
  Block<T> block;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t label = note_label<T>(g, block, i);
    const T* x = g.logits + i * g.classes;
    const Row<T, N> row = load_row<T, N>(x, tail);
    const Vec<T> max = row_max<T, N>(row, valid);
    const Row<T, N> e = row_exp<T, N>(row, max, valid);
    const Vec<T> sum = row_sum<T, N>(e);
    const bool good = label >= 0;
    const T picked = good ? x[label] : T(0);
    block.sums[i - begin] = good ? sum[0] : T(1);
    block.offsets[i - begin] = good ? max[0] - picked : T(0);
    if (good && picked == max[0]) {
      IntVec<T> earlier{};
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) {
        const IntVec<T> before = element_numbers<T>() < broadcast_bits<T>(static_cast<Int>(label - k * W));
        earlier |= before & (row.v[k] == max);
      }
      block.totals.correct += !any_element<T>(earlier);
    }
    if (!g.dlogits) continue;
    const T scale = good ? (g.dlosses ? g.scale * g.dlosses[i] : g.scale) : T(0);
    const Vec<T> weight = broadcast<T>(good ? scale / sum[0] : T(0));
    Row<T, N> d;
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) {
      const IntVec<T> here = element_numbers<T>() == broadcast_bits<T>(static_cast<Int>(label - k * W));
      d.v[k] = good ? e.v[k] * weight : Vec<T>{};  // a choice: a bad row of infinities must not give NaN
      d.v[k] -= here ? broadcast<T>(scale) : Vec<T>{};
      columns.v[k] += d.v[k];
    }
    store_row<T, N>(g.dlogits + i * g.classes, d, tail);
  }
  if (sums) store_row<T, N>(sums, columns, tail);
  finish<T>(g, block, begin, end);
  return block.totals;
}

template <class T>
LossTotals long_rows(const CrossEntropyArguments<T>& g, int64_t begin, int64_t end, T* sums) noexcept {
  Block<T> block;
  start_sums<T>(sums, g.classes);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t label = note_label<T>(g, block, i);
    const T* x = g.logits + i * g.classes;
    T* d = g.dlogits ? g.dlogits + i * g.classes : nullptr;
    if (label < 0) {
      block.sums[i - begin] = 1, block.offsets[i - begin] = 0;
      for (int64_t j = 0; d && j < g.classes; ++j) d[j] = 0;
      continue;
    }
    const Vec<T> max = long_row_max<T>(x, g.classes);
    const T picked = x[label];
    bool correct = picked == max[0];
    for (int64_t j = 0; correct && j < label; ++j) correct = x[j] != picked;
    block.totals.correct += correct;
    const Vec<T> sum = long_row_exp<T>(x, d, g.classes, max);
    block.sums[i - begin] = sum[0];
    block.offsets[i - begin] = max[0] - picked;
    if (!d) continue;
    const T scale = g.dlosses ? g.scale * g.dlosses[i] : g.scale;
    const Vec<T> weight = broadcast<T>(scale) / sum;
    for_vectors<T>(
        g.classes, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> v = load_up_to<T>(d + j, n) * weight;
          store_up_to<T>(d + j, v, n);
          if (sums) store_up_to<T>(sums + j, load_up_to<T>(sums + j, n) + v, n);
        });
    d[label] -= scale;
    if (sums) sums[label] -= scale;
  }
  finish<T>(g, block, begin, end);
  return block.totals;
}

template <class T>
void run(const Lane& lane, const CrossEntropyArguments<T>& g) noexcept {
  for_loss_blocks<T>(lane, g.rows, g.classes, g.column_sums, g.totals, [&](int64_t begin, int64_t end, T* sums) {
    switch ((g.classes + kWidth<T> - 1) / kWidth<T>) {
      case 1: return short_rows<T, 1>(g, begin, end, sums);
      case 2: return short_rows<T, 2>(g, begin, end, sums);
      case 3: return short_rows<T, 3>(g, begin, end, sums);
      case 4: return short_rows<T, 4>(g, begin, end, sums);
      default: return long_rows<T>(g, begin, end, sums);
    }
  });
}

}  // namespace

extern const CrossEntropyKernel cross_entropy_kernel;
const CrossEntropyKernel cross_entropy_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
