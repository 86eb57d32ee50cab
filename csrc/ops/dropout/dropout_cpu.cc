#include "ops/dropout/dropout_key.h"
#include "ops/dropout/kernels.h"
#include "ops/dropout/philox_vector.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

constexpr int kCounters = kWidth<uint32_t>;
constexpr int64_t kNumbers = 8 * kCounters;  // 16-bit numbers that one call of philox gives

// Fills `numbers` for kCounters groups of eight columns: group `first` + k of the batch, rows one after another.
GRADRING_INLINE void draw(const DropoutKey& key, const int64_t* samples, int64_t first_sample, int64_t rows,
                          int64_t groups, int64_t first, uint16_t* numbers) noexcept {
  uint32_t counter[3][kCounters] = {};
  int64_t row = first / groups, group = first % groups;
  for (int k = 0; k < kCounters && row < rows; ++k) {
    const uint64_t sample = static_cast<uint64_t>(samples ? samples[row] : first_sample + row);
    counter[0][k] = static_cast<uint32_t>(group);
    counter[1][k] = static_cast<uint32_t>(sample);
    counter[2][k] = static_cast<uint32_t>(sample >> 32);
    if (++group == groups) group = 0, ++row;
  }
  PhiloxVectors c;
  c.w[0] = load<uint32_t>(counter[0]);
  c.w[1] = Vec<uint32_t>{};
  c.w[2] = load<uint32_t>(counter[1]);
  c.w[3] = load<uint32_t>(counter[2]);
  c = philox(c, key.key0, key.key1);
  uint32_t words[4][kCounters];
  for (int w = 0; w < 4; ++w) store<uint32_t>(words[w], c.w[w]);
  for (int k = 0; k < kCounters; ++k) {
    const uint32_t four[4] = {words[0][k], words[1][k], words[2][k], words[3][k]};
    __builtin_memcpy(numbers + 8 * k, four, sizeof four);
  }
}

// Sets y to x * scale where the random number is at least the threshold, and to 0 elsewhere.
template <class T>
GRADRING_INLINE void apply(const T* x, T* y, const uint16_t* numbers, int64_t n, int32_t threshold, T scale) noexcept {
  using Int = typename Float<T>::Int;
  for_vectors<T>(
      n, [&](int64_t j, int64_t count) __attribute__((always_inline)) {
        typedef uint16_t Halves __attribute__((vector_size(2 * kWidth<T>)));
        Halves halves;
        __builtin_memcpy(&halves, numbers + j, sizeof halves);
        const IntVec<T> wide = __builtin_convertvector(halves, IntVec<T>);
        const IntVec<T> keep = wide >= broadcast_bits<T>(static_cast<Int>(threshold));
        store_up_to<T>(y + j, keep ? load_up_to<T>(x + j, count) * scale : Vec<T>{}, count);
      });
}

template <class T>
void run(const Lane& lane, const DropoutArguments<T>& g) noexcept {
  if (g.columns == 0) return;
  const DropoutKey key = dropout_key(g.seed, g.layer, g.epoch, g.p);
  const T scale = static_cast<T>(key.scale);
  const int64_t groups = (g.columns + 7) / 8;
  const Range rows = split(lane, g.rows, 8);
  uint16_t numbers[kNumbers + 64];  // longer than needed, because apply reads whole vectors
  for (int64_t first = rows.begin * groups; first < rows.end * groups; first += kCounters) {
    draw(key, g.samples, g.first_sample, rows.end, groups, first, numbers);
    // The drawn groups cover the end of one row, perhaps whole rows, and the start of another.
    int64_t at = first;
    const int64_t last = first + kCounters < rows.end * groups ? first + kCounters : rows.end * groups;
    while (at < last) {
      const int64_t row = at / groups, group = at % groups;
      const int64_t until = (row + 1) * groups < last ? (row + 1) * groups : last;
      const int64_t begin = group * 8;
      const int64_t end = begin + (until - at) * 8 < g.columns ? begin + (until - at) * 8 : g.columns;
      const int64_t offset = row * g.columns + begin;
      apply<T>(g.x + offset, g.y + offset, numbers + (at - first) * 8, end - begin, key.threshold, scale);
      at = until;
    }
  }
}

}  // namespace

extern const DropoutKernel dropout_kernel;
const DropoutKernel dropout_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
