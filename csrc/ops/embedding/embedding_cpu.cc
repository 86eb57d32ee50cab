#include "ops/embedding/kernels.h"
#include "ops/simd/row_sums.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// The positions of the ids in the order of the rows: those of row r are order[first[r] .. first[r + 1]), ascending.
struct Segments {
  int64_t* first;  // (rows + 1,)
  int64_t* order;  // (count,)
  int64_t* ids;    // (count,): a copy, so that counts and places agree even if another thread changes the ids
};

// A counting sort. Returns the position of the first id that is no row, or -1.
int64_t sort_positions(const Ids& ids, int64_t count, int64_t rows, const Segments& s) noexcept {
  for (int64_t r = 0; r <= rows; ++r) s.first[r] = 0;
  int64_t fault = -1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = ids[i];
    const bool inside = row >= 0 && row < rows;
    s.ids[i] = inside ? row : -1;
    if (inside) {
      ++s.first[row];
    } else if (fault < 0) {
      fault = i;
    }
  }
  int64_t end = 0;
  for (int64_t r = 0; r <= rows; ++r) s.first[r] = end += s.first[r];
  // Go through the ids from the last to the first, and give each the last free place of its row. At the end, first[r] is the
  // place where row r begins.
  for (int64_t i = count - 1; i >= 0; --i) {
    if (s.ids[i] >= 0) s.order[--s.first[s.ids[i]]] = i;
  }
  return fault;
}

constexpr int64_t kTerms = 32;  // terms that are added first: their sum is then one term of the whole sum

// Adds up terms in kVectors vectors of columns, of which the last has n elements.
template <class T, int kVectors>
GRADRING_INLINE void sum_terms(const T* dy, int64_t columns, const int64_t* order, int64_t count, T* sums,
                               int64_t n) noexcept {
  constexpr int64_t W = kWidth<T>;
  Vec<T> total[kVectors] = {};
  for (int64_t begin = 0; begin < count; begin += kTerms) {
    const int64_t end = begin + kTerms < count ? begin + kTerms : count;
    Vec<T> block[kVectors] = {};
    for (int64_t i = begin; i < end; ++i) {
      const T* row = dy + order[i] * columns;
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) block[k] += load_up_to<T>(row + k * W, k + 1 < kVectors ? W : n);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kVectors; ++k) total[k] += block[k];
  }
#pragma GCC unroll 4
  for (int k = 0; k < kVectors; ++k) store_up_to<T>(sums + k * W, total[k], k + 1 < kVectors ? W : n);
}

// Lanes split the columns, so each sum is one lane's.
template <class T>
void run_vjp(const Lane& lane, const EmbeddingVjpArguments<T>& g) noexcept {
  auto* const words = reinterpret_cast<int64_t*>(lane.shared_scratch());
  const Segments s = {words, words + g.rows + 1, words + g.rows + 1 + g.count};
  if (lane.index == 0) {
    const int64_t fault = sort_positions(g.ids, g.count, g.rows, s);
    if (g.fault) *g.fault = fault;
  }
  if (lane.count > 1) lane.barrier();
  const Range mine = split(lane, g.columns, 64 / static_cast<int64_t>(sizeof(T)));
  const int64_t width = mine.end - mine.begin;
  if (width == 0) return;
  for (int64_t r = 0; r < g.rows; ++r) {
    T* sums = g.dtable + r * g.columns + mine.begin;
    const T* dy = g.dy + mine.begin;
    const int64_t* order = s.order + s.first[r];
    const int64_t count = s.first[r + 1] - s.first[r];
    if (count == 0) {
      set_zero<T>(sums, width);
      continue;
    }
    constexpr int64_t W = kWidth<T>;
    int64_t j = 0;
    for (; j + 4 * W <= width; j += 4 * W) sum_terms<T, 4>(dy + j, g.columns, order, count, sums + j, W);
    for (; j < width; j += W) {
      sum_terms<T, 1>(dy + j, g.columns, order, count, sums + j, j + W <= width ? W : width - j);
    }
  }
}

}  // namespace

extern const EmbeddingVjpKernel embedding_vjp_kernel;
const EmbeddingVjpKernel embedding_vjp_kernel = {run_vjp<float>, run_vjp<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
