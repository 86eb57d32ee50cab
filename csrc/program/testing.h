// Helpers for tests: a program of a two-layer perceptron written by hand, its arenas, and what it should compute.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/loss/loss.h"
#include "program/engine.h"
#include "program/program.h"
#include "runtime/arena.h"

namespace gradring::testing {

// A value of a program: a buffer of its own, or (the default) a field of the step record.
struct View {
  int32_t buffer = -1;
  Dtype dtype = kNoDtype;
  std::vector<int64_t> shape;
};

// Writes programs by hand, with operands and attributes by name.
struct ProgramMaker {
  Program program;

  // `offset`: bytes from the arena's start, or the number of the batch's field.
  View view(BufferKind kind, Dtype dtype, std::vector<int64_t> shape, int64_t offset) {
    auto bytes = static_cast<int64_t>(size_of(dtype));
    for (const int64_t extent : shape) bytes *= extent;
    program.buffers.push_back({kind, bytes, offset, arena(kind, offset + bytes)});
    return {static_cast<int32_t>(program.buffers.size() - 1), dtype, std::move(shape)};
  }

  // Returns one arena of each kind, as large as its buffers need.
  int32_t arena(BufferKind kind, int64_t end) {
    if (kind == BufferKind::kInput) program.fields = 2;
    if (kind == BufferKind::kOutput) program.outputs = 1;
    if (!has_arena(kind)) return -1;
    auto& arenas = program.arenas;
    auto at = std::find_if(arenas.begin(), arenas.end(), [kind](const Arena& a) { return a.kind == kind; });
    if (at == arenas.end()) at = arenas.insert(at, {kBufferKindNames[static_cast<int>(kind)], kind, 0});
    at->bytes = std::max(at->bytes, end);
    return static_cast<int32_t>(at - arenas.begin());
  }

  Instruction& emit(std::string_view op, const std::vector<std::pair<std::string_view, View>>& operands,
                    const std::vector<std::pair<std::string_view, AttributeValue>>& attributes = {}) {
    const OpSchema& schema = *find_schema(op);
    Instruction instruction(schema);
    for (const auto& [name, view] : operands) {
      instruction.arguments.push_back(
          {find_operand(schema, name), view.buffer, view.dtype, 0, view.shape, dense_strides(view.shape, view.dtype)});
    }
    for (const auto& [name, value] : attributes) {
      instruction.attributes[static_cast<size_t>(find_attribute(schema, name))] = value;
    }
    program.instructions.push_back(std::move(instruction));
    return program.instructions.back();
  }
};

// Returns the memory of the only arena of this kind.
inline void set_arena(Arenas* arenas, BufferKind kind, AlignedArena& memory) {
  arenas->set(kBufferKindNames[static_cast<int>(kind)], kind, memory.data(), static_cast<int64_t>(memory.size()));
}

// x (rows, in) -> relu -> (rows, out), cross entropy, SGD with momentum 0.9.
struct Perceptron {
  int64_t rows, in, hidden, out;
  Dtype dtype = Dtype::kFloat32;
  bool scaled = false;  // the loss is multiplied by its scale, and an update whose gradients are not finite is skipped

  int64_t size() const { return static_cast<int64_t>(size_of(dtype)); }
  int64_t w1() const { return 0; }
  int64_t b1() const { return in * hidden; }
  int64_t w2() const { return b1() + hidden; }
  int64_t b2() const { return w2() + hidden * out; }
  int64_t elements() const { return b2() + out; }

  int64_t temp_bytes() const { return (2 * rows * hidden + (scaled ? 3 : 2) * rows * out) * size() + 128; }

  Program program() const {
    ProgramMaker make;
    const auto real = [&](BufferKind kind, std::vector<int64_t> shape, int64_t offset) {
      return make.view(kind, dtype, std::move(shape), offset * size());
    };
    const View x = make.view(BufferKind::kInput, dtype, {rows, in}, 0);
    const View y = make.view(BufferKind::kInput, Dtype::kInt64, {rows}, 1);
    const View weight1 = real(BufferKind::kParam, {in, hidden}, w1()), bias1 = real(BufferKind::kParam, {hidden}, b1());
    const View weight2 = real(BufferKind::kParam, {hidden, out}, w2()), bias2 = real(BufferKind::kParam, {out}, b2());
    const View dw1 = real(BufferKind::kGrad, {in, hidden}, w1()), db1 = real(BufferKind::kGrad, {hidden}, b1());
    const View dw2 = real(BufferKind::kGrad, {hidden, out}, w2()), db2 = real(BufferKind::kGrad, {out}, b2());
    const View h = real(BufferKind::kTemp, {rows, hidden}, 0);
    const View dh = real(BufferKind::kTemp, {rows, hidden}, rows * hidden);
    const View z = real(BufferKind::kTemp, {rows, out}, 2 * rows * hidden);
    const View raw = real(BufferKind::kTemp, {rows, out}, 2 * rows * hidden + rows * out);
    const View dz = scaled ? real(BufferKind::kTemp, {rows, out}, 2 * rows * hidden + 2 * rows * out) : raw;
    const int64_t end = ((2 * rows * hidden + (scaled ? 3 : 2) * rows * out) * size() + 7) / 8 * 8;
    const View totals = make.view(BufferKind::kTemp, Dtype::kInt64, {sizeof(LossTotals) / sizeof(int64_t)}, end);
    const View all = real(BufferKind::kParam, {elements()}, 0), all_grads = real(BufferKind::kGrad, {elements()}, 0);
    const View momentum = real(BufferKind::kState, {elements()}, 0);
    const AttributeValue relu = integer_value(1);
    make.emit("linear", {{"x", x}, {"w", weight1}, {"b", bias1}, {"y", h}}, {{"activation", relu}});
    make.emit("linear", {{"x", h}, {"w", weight2}, {"b", bias2}, {"y", z}});
    std::vector<std::pair<std::string_view, View>> loss = {{"x", z}, {"target", y}, {"dx", raw}, {"totals", totals}};
    if (!scaled) loss.insert(loss.end() - 1, {"column_sums", db2});
    make.emit("cross_entropy", loss, {{"reduction", integer_value(1)}});
    make.emit("check_step", {{"totals", totals}, {"loss_sum", {}}, {"weight", {}}, {"correct", {}}, {"finite", {}}},
              {{"rows", integer_value(rows)}});
    if (scaled) {
      make.emit("scale_gradient", {{"x", raw}, {"scale", {}}, {"loss", {}}, {"y", dz}});
      make.emit("column_sums", {{"x", dz}, {"y", db2}});
    }
    make.emit("linear_dx", {{"dy", dz}, {"w", weight2}, {"source", h}, {"dx", dh}, {"column_sums", db1}},
              {{"activation", relu}});
    make.emit("linear_dw", {{"x", h}, {"dy", dz}, {"dw", dw2}});
    make.emit("linear_dw", {{"x", x}, {"dy", dh}, {"dw", dw1}});
    std::vector<std::pair<std::string_view, View>> update = {
        {"param", all}, {"gradient", all_grads}, {"momentum", momentum}, {"lr", {}}, {"finite", {}}};
    if (scaled) {
      const View squares =
          make.view(BufferKind::kTemp, Dtype::kFloat64, {1}, end + static_cast<int64_t>(sizeof(LossTotals)));
      make.emit("sum_of_squares", {{"gradient", all_grads}, {"sum", squares}});
      make.emit("clip", {{"sum", squares}, {"clip", {}}, {"norm", {}}, {"scale", {}}});
      update.push_back({"clip", {}});
    }
    make.emit("sgd", update, {{"momentum", real_value(0.9)}});
    return make.program;
  }
};

// The arenas of a perceptron, parameters filled from a seed.
template <class T>
struct Memory {
  AlignedArena param, grad, state, temp;
  Arenas arenas;

  explicit Memory(const Perceptron& p, unsigned seed = 1)
      : param(bytes(p)), grad(bytes(p)), state(bytes(p)), temp(static_cast<size_t>(p.temp_bytes())) {
    set_arena(&arenas, BufferKind::kParam, param);
    set_arena(&arenas, BufferKind::kGrad, grad);
    set_arena(&arenas, BufferKind::kState, state);
    set_arena(&arenas, BufferKind::kTemp, temp);
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
