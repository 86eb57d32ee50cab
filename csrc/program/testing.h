// For tests: a program of a two-layer perceptron written by hand, its arenas, and what it should compute.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

#include "program/engine.h"
#include "program/op_table.h"
#include "program/program.h"
#include "runtime/arena.h"

namespace gradring::testing {

// x (rows, in) -> relu -> (rows, out), cross entropy, SGD with momentum 0.9.
struct Perceptron {
  int64_t rows, in, hidden, out;
  Dtype dtype = Dtype::kFloat32;

  int64_t size() const { return static_cast<int64_t>(size_of(dtype)); }
  int64_t w1() const { return 0; }
  int64_t b1() const { return in * hidden; }
  int64_t w2() const { return b1() + hidden; }
  int64_t b2() const { return w2() + hidden * out; }
  int64_t elements() const { return b2() + out; }

  int64_t temp_bytes() const { return (2 * rows * hidden + 2 * rows * out) * size() + 64; }

  Program program() const {
    Program p;
    p.dtype = dtype;
    const auto add = [&p](BufferKind kind, Dtype type, int64_t elements, int64_t offset) {
      p.buffers.push_back({kind, type, elements, offset});
      return static_cast<int32_t>(p.buffers.size() - 1);
    };
    const auto real = [&](BufferKind kind, int64_t n, int64_t offset) { return add(kind, dtype, n, offset * size()); };
    const int32_t x = add(BufferKind::kInput, dtype, rows * in, 0);
    const int32_t y = add(BufferKind::kInput, Dtype::kInt64, rows, 1);
    int32_t params[4], grads[4];
    const int64_t offsets[5] = {w1(), b1(), w2(), b2(), elements()};
    for (int i = 0; i < 4; ++i) {
      params[i] = real(BufferKind::kParam, offsets[i + 1] - offsets[i], offsets[i]);
      grads[i] = real(BufferKind::kGrad, offsets[i + 1] - offsets[i], offsets[i]);
    }
    const int32_t h = real(BufferKind::kTemp, rows * hidden, 0);
    const int32_t dh = real(BufferKind::kTemp, rows * hidden, rows * hidden);
    const int32_t z = real(BufferKind::kTemp, rows * out, 2 * rows * hidden);
    const int32_t dz = real(BufferKind::kTemp, rows * out, 2 * rows * hidden + rows * out);
    const int64_t end = (2 * rows * hidden + 2 * rows * out) * size();
    const int32_t totals = add(BufferKind::kTemp, Dtype::kInt64, 3, (end + 7) / 8 * 8);
    const int32_t all = real(BufferKind::kParam, elements(), 0);
    const int32_t all_grads = real(BufferKind::kGrad, elements(), 0);
    const int32_t momentum = real(BufferKind::kState, elements(), 0);
    const auto emit = [&p](std::string_view op, std::vector<int32_t> operands, std::vector<int64_t> integers,
                           std::vector<double> reals = {}) {
      Instruction i;
      i.op = find_op(op);
      std::copy(operands.begin(), operands.end(), i.operands.begin());
      std::copy(integers.begin(), integers.end(), i.integers.begin());
      std::copy(reals.begin(), reals.end(), i.reals.begin());
      p.instructions.push_back(i);
    };
    emit("matmul", {x, params[0], h, params[1]}, {rows, hidden, in, 0, 1, 0});
    emit("matmul", {h, params[2], z, params[3]}, {rows, out, hidden, 0, 0, 0});
    emit("cross_entropy", {z, y, dz, grads[3], totals}, {rows, out, 0});
    emit("check_step", {totals}, {rows});
    emit("matmul", {dz, params[2], dh, -1, -1, h, grads[1]}, {rows, hidden, out, 2, 0, 1});
    emit("matmul", {h, dz, grads[2]}, {hidden, out, rows, 1, 0, 0});
    emit("matmul", {x, dh, grads[0]}, {in, hidden, rows, 1, 0, 0});
    emit("sgd", {all, all_grads, momentum}, {elements(), 0, 0}, {0.9, 0});
    return p;
  }
};

// The arenas of a perceptron, parameters filled from a seed.
template <class T>
struct Memory {
  AlignedArena param, grad, state, temp;
  Arenas arenas;

  explicit Memory(const Perceptron& p, unsigned seed = 1)
      : param(bytes(p)), grad(bytes(p)), state(bytes(p)), temp(static_cast<size_t>(p.temp_bytes())) {
    arenas.set(BufferKind::kInput, nullptr, 2);
    arenas.set(BufferKind::kOutput, nullptr, 1);
    arenas.set(BufferKind::kParam, param.data(), static_cast<int64_t>(param.size()));
    arenas.set(BufferKind::kGrad, grad.data(), static_cast<int64_t>(grad.size()));
    arenas.set(BufferKind::kState, state.data(), static_cast<int64_t>(state.size()));
    arenas.set(BufferKind::kTemp, temp.data(), static_cast<int64_t>(temp.size()));
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0, 0.3);
    for (int64_t i = 0; i < p.elements(); ++i) params()[i] = static_cast<T>(normal(generator));
  }

  static size_t bytes(const Perceptron& p) { return static_cast<size_t>(p.elements()) * sizeof(T); }
  T* params() { return reinterpret_cast<T*>(param.data()); }
  T* grads() { return reinterpret_cast<T*>(grad.data()); }
  std::vector<T> copy(const Perceptron& p) { return std::vector<T>(params(), params() + p.elements()); }
};

template <class T>
struct Samples {
  std::vector<T> x;
  std::vector<int64_t> y;

  Samples(int64_t n, int64_t in, int64_t classes, unsigned seed = 5)
      : x(static_cast<size_t>(n * in)), y(static_cast<size_t>(n)) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    for (T& v : x) v = static_cast<T>(normal(generator));
    for (int64_t& v : y) v = static_cast<int64_t>(generator() % static_cast<unsigned>(classes));
  }

  Batch batch(int64_t rows) const {
    Batch b;
    b.fields[0] = x.data();
    b.fields[1] = y.data();
    b.rows = rows;
    return b;
  }
};

// The mean loss of a perceptron, in double: the truth that gradients are compared with by finite differences.
template <class T>
double loss_of(const Perceptron& p, const std::vector<double>& w, const Samples<T>& s) {
  double total = 0;
  for (int64_t r = 0; r < p.rows; ++r) {
    std::vector<double> h(static_cast<size_t>(p.hidden)), z(static_cast<size_t>(p.out));
    for (int64_t j = 0; j < p.hidden; ++j) {
      double v = w[static_cast<size_t>(p.b1() + j)];
      for (int64_t k = 0; k < p.in; ++k) {
        v += static_cast<double>(s.x[static_cast<size_t>(r * p.in + k)]) * w[static_cast<size_t>(k * p.hidden + j)];
      }
      h[static_cast<size_t>(j)] = v > 0 ? v : 0;
    }
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < p.out; ++j) {
      double v = w[static_cast<size_t>(p.b2() + j)];
      for (int64_t k = 0; k < p.hidden; ++k) {
        v += h[static_cast<size_t>(k)] * w[static_cast<size_t>(p.w2() + k * p.out + j)];
      }
      z[static_cast<size_t>(j)] = v;
      largest = std::max(largest, v);
    }
    for (const double v : z) sum += std::exp(v - largest);
    total += std::log(sum) + largest - z[static_cast<size_t>(s.y[static_cast<size_t>(r)])];
  }
  return total / static_cast<double>(p.rows);
}

}  // namespace gradring::testing
