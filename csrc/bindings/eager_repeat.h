// Calls of an eager op that repeat an earlier one: the same arguments in number, type and shape, with other numbers in
// the arrays. A loop makes millions of them, and checks, shapes, work and kernel of the earlier call hold for each.
//
// A call is remembered only if nothing but the arrays' memory can differ from one repetition to the next: its arrays are dense
// ndarrays, all other arguments are immutable constants (which are kept alive, and compared by identity, or by value if they are
// floats), it has no seed to draw, and an array that it was given as out= is its only result. All other calls take the general
// path in eager_op.cc.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>

#include "ops/matmul/products.h"
#include "ops/op.h"
#include "runtime/cpu.h"

namespace gradring {

struct EagerBinding;
class Array;

class KnownCall {
 public:
  static constexpr int kMostAttributes = 12;
  static constexpr int kMostArguments = 8;
  static constexpr int kMostRank = 4;
  static constexpr int kMostResults = 4;

  // The facts of the remembered call that a repetition needs.
  struct Facts {
    const OpCall* call;
    const Array* arrays;      // by operand: the arrays that the kernel read and wrote
    PyObject* const* values;  // by parameter: the argument, or null where none was given
    const OpWork* work;
    OpRun first, second;
    int lanes;    // how many lanes the work was computed for
    bool number;  // the call returned a number
  };

  KnownCall() noexcept = default;
  ~KnownCall() { forget(); }
  KnownCall(const KnownCall&) = delete;
  KnownCall& operator=(const KnownCall&) = delete;

  bool repeated(PyObject* const* given, Py_ssize_t count, PyObject* keywords) const noexcept;
  // Remembers a call. If the call cannot be repeated, this object stays as it was.
  void remember(const EagerBinding& binding, PyObject* const* given, Py_ssize_t count, PyObject* keywords,
                const Facts& facts);
  // Runs a call for which repeated() is true. If it returns null, a Python error is set. It may also throw a C++ exception.
  PyObject* run(const EagerBinding& binding, PyObject* const* given) const;

 private:
  struct Argument {
    PyObject* constant = nullptr;    // an immutable object; null: an array
    PyObject* descriptor = nullptr;  // the array's dtype
    int32_t operand = -1;
    Dtype dtype = kNoDtype;
    int32_t rank = 0;
    std::array<int64_t, kMostRank> shape{};
    size_t bytes = 0;  // the size of the array in bytes
  };
  struct Result {
    PyObject* descriptor = nullptr;  // null: the call does not make it, or was given it
    int32_t operand = -1;
    Dtype dtype = kNoDtype;
    int32_t rank = 0;
    std::array<int64_t, kMostRank> shape{};
  };

  void forget() noexcept;
  // Returns whether the kernel may write to the array given as out= while it reads the other arrays.
  bool out_fits(PyObject* const* given) const noexcept;

  int count_ = -1;  // arguments by position and by name; -1: nothing is remembered
  Py_ssize_t by_position_ = 0;
  PyObject* keywords_ = nullptr;
  int lanes_ = 0;
  Isa isa_ = Isa::kBase;                // active_isa() at the call: kernels and their scratch memory belong to it
  Products products_ = Products::kFma;  // default_products() at the call
  int out_ = -1;                        // the argument that is out=; -1: the call makes its results
  bool out_apart_ = false;              // the result may not be the very memory of an input either
  bool number_ = false;
  OpRun first_ = nullptr;
  OpRun second_ = nullptr;
  OpWork work_;
  std::array<Argument, kMostArguments> arguments_;
  std::array<Result, kMostResults> results_;
  std::array<AttributeValue, kMostAttributes> attributes_{};
};

// The last few calls that can be repeated; more than one, because the layers of a network alternate.
class KnownCalls {
 public:
  const KnownCall* find(PyObject* const* given, Py_ssize_t count, PyObject* keywords) const noexcept {
    for (const KnownCall& call : calls_)
      if (call.repeated(given, count, keywords)) return &call;
    return nullptr;
  }
  KnownCall& oldest() noexcept {
    KnownCall& call = calls_[next_];
    next_ = (next_ + 1) % calls_.size();
    return call;
  }

 private:
  std::array<KnownCall, 4> calls_;
  size_t next_ = 0;
};

// Runs the kernels of a call that has passed all checks.
void run_kernels(const OpCall& call, const OpWork& work, OpRun first, OpRun second);

}  // namespace gradring
