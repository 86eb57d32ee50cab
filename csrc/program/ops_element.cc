// Instructions that work element by element or sum columns.
#include <cmath>
#include <cstring>

#include "ops/activation/activation.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr int64_t kGrain = 64;

// add: operands a, b, out (which may be a or b); integers elements.
template <class T>
void add(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const T* a = frame.get<const T>(i, 0);
  const T* b = frame.get<const T>(i, 1);
  T* out = frame.get<T>(i, 2);
  const Range range = split(lane, i.integers[0], kGrain);
  for (int64_t e = range.begin; e < range.end; ++e) out[e] = a[e] + b[e];
}

void add_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, false);
  list->add(1, i.integers[0], real, true, false);
  list->add(2, i.integers[0], real, false, true);
}

// copy: operands from, to; integers elements.
template <class T>
void copy(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const Range range = split(lane, i.integers[0], kGrain);
  const T* from = frame.get<const T>(i, 0);
  T* to = frame.get<T>(i, 1);
  if (range.end > range.begin) {
    std::memcpy(to + range.begin, from + range.begin, static_cast<size_t>(range.end - range.begin) * sizeof(T));
  }
}

void copy_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, false);
  list->add(1, i.integers[0], real, false, true);
}

// column_sums: operands x (rows x columns), sums; integers rows, columns. Lanes split the columns; each sum goes over
// blocks of 64 rows, then over the blocks, in order.
template <class T>
void column_sums(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const T* x = frame.get<const T>(i, 0);
  T* sums = frame.get<T>(i, 1);
  const int64_t rows = i.integers[0], columns = i.integers[1];
  const Range range = split(lane, columns, 16);
  constexpr int64_t kWidth = 16;
  for (int64_t begin = range.begin; begin < range.end; begin += kWidth) {
    const int64_t width = range.end - begin < kWidth ? range.end - begin : kWidth;
    T total[kWidth] = {};
    for (int64_t row = 0; row < rows; row += 64) {
      const int64_t end = row + 64 < rows ? row + 64 : rows;
      T block[kWidth] = {};
      if (width == kWidth) {
        for (int64_t r = row; r < end; ++r) {
          for (int64_t c = 0; c < kWidth; ++c) block[c] += x[r * columns + begin + c];
        }
      } else {
        for (int64_t r = row; r < end; ++r) {
          for (int64_t c = 0; c < width; ++c) block[c] += x[r * columns + begin + c];
        }
      }
      for (int64_t c = 0; c < width; ++c) total[c] += block[c];
    }
    for (int64_t c = 0; c < width; ++c) sums[begin + c] = total[c];
  }
}

void column_sums_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0] * i.integers[1], real, true, false);
  list->add(1, i.integers[1], real, false, true);
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double value_of(Activation kind, double x) {
  const double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
  switch (kind) {
    case Activation::kRelu: return x < 0 ? 0 : x;
    case Activation::kGelu: return x * sigmoid(2 * u);
    case Activation::kSilu: return x * sigmoid(x);
    case Activation::kTanh: return std::tanh(x);
    case Activation::kSigmoid: return sigmoid(x);
    default: return x;
  }
}

double slope_of(Activation kind, double s) {
  const double u = 0.7978845608028654 * (s + 0.044715 * s * s * s), g = sigmoid(2 * u);
  switch (kind) {
    case Activation::kRelu: return s > 0;
    case Activation::kGelu: return g + s * g * (1 - g) * 2 * 0.7978845608028654 * (1 + 3 * 0.044715 * s * s);
    case Activation::kSilu: return sigmoid(s) * (1 + s * (1 - sigmoid(s)));
    case Activation::kTanh: return 1 - s * s;
    case Activation::kSigmoid: return s * (1 - s);
    default: return 1;
  }
}

// activation: operands x, y; integers elements, kind.
template <class T>
void activation(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const T* x = frame.get<const T>(i, 0);
  T* y = frame.get<T>(i, 1);
  const Range range = split(lane, i.integers[0], kGrain);
  const auto kind = static_cast<Activation>(i.integers[1]);
  for (int64_t e = range.begin; e < range.end; ++e) y[e] = static_cast<T>(value_of(kind, x[e]));
}

// activation_vjp: operands dy, source, dx; integers elements, kind.
template <class T>
void activation_gradient(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const T* dy = frame.get<const T>(i, 0);
  const T* source = frame.get<const T>(i, 1);
  T* dx = frame.get<T>(i, 2);
  const Range range = split(lane, i.integers[0], kGrain);
  const auto kind = static_cast<Activation>(i.integers[1]);
  for (int64_t e = range.begin; e < range.end; ++e) dx[e] = dy[e] * static_cast<T>(slope_of(kind, source[e]));
}

void activation_gradient_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, false);
  list->add(1, i.integers[0], real, true, false);
  list->add(2, i.integers[0], real, false, true);
}

const OpEntry kOps[] = {
    {"activation", Phase::kCompute, copy_accesses, activation<float>, activation<double>, nullptr},
    {"activation_vjp", Phase::kCompute, activation_gradient_accesses, activation_gradient<float>,
     activation_gradient<double>, nullptr},
    {"add", Phase::kCompute, add_accesses, add<float>, add<double>, nullptr},
    {"copy", Phase::kCompute, copy_accesses, copy<float>, copy<double>, nullptr},
    {"column_sums", Phase::kCompute, column_sums_accesses, column_sums<float>, column_sums<double>, nullptr},
};

}  // namespace

OpSpan element_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
