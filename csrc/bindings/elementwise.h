// What the doors of element-wise and row-wise operations share.
#pragma once

#include <string>
#include <utility>

#include "bindings/array.h"
#include "bindings/fast_call.h"
#include "bindings/gil.h"
#include "ops/work.h"
#include "runtime/default_team.h"

namespace gradring {

// Calls body with a value of the array's element type.
template <class Body>
void for_float(Dtype dtype, const Body& body) {
  if (dtype == Dtype::kFloat32) {
    body(float{});
  } else {
    body(double{});
  }
}

// Runs body(lane) on the shared team, without the GIL where the work (in element operations) is worth it.
template <class Body>
void run_lanes(double operations, int lanes, ScratchBytes scratch, const Body& body) {
  const MaybeReleaseGil released(operations);
  TeamLease team(lanes, scratch.per_lane, scratch.shared);
  team.run(body);
}

// Where a result is computed: out= itself if it is contiguous and overlaps no input except to lie exactly on it
// (kernels read an element before they write it), else memory of its own that is copied over at the end.
class Result {
 public:
  // Shape and dtype are `like`'s.
  Result(const char* op, PyObject* out, const Array& like, std::initializer_list<const Array*> inputs) {
    int64_t shape[64];
    for (int axis = 0; axis < like.dimensions(); ++axis) shape[axis] = like.size(axis);
    make(op, out, like.dtype(), like.dimensions(), shape, inputs);
  }
  Result(const char* op, PyObject* out, Dtype dtype, int dimensions, const int64_t* shape,
         std::initializer_list<const Array*> inputs) {
    make(op, out, dtype, dimensions, shape, inputs);
  }

  template <class T>
  T* data() const noexcept {
    return (own_ ? own_ : out_).template data<T>();
  }
  // The finished array, as a new reference.
  PyObject* finish() {
    if (own_) out_.assign(own_);
    return out_.release();
  }

 private:
  void make(const char* op, PyObject* out, Dtype dtype, int dimensions, const int64_t* shape,
            std::initializer_list<const Array*> inputs) {
    out_ = Array::output(op, "out", out, dtype, dimensions, shape);
    if (!given_or_null(out)) return;
    bool direct = out_.contiguous();
    for (const Array* input : inputs) direct = direct && (lies_on(*input) || apart(*input));
    if (!direct) own_ = Array::empty(dtype, dimensions, shape);
  }
  bool lies_on(const Array& input) const noexcept {
    return input.data() == out_.data() && input.dtype() == out_.dtype() && input.contiguous() &&
           input.elements() == out_.elements();
  }
  // Both are contiguous here.
  bool apart(const Array& input) const noexcept {
    const auto a = reinterpret_cast<uintptr_t>(out_.data()), b = reinterpret_cast<uintptr_t>(input.data());
    return a + static_cast<uintptr_t>(out_.elements() * out_.item_bytes()) <= b ||
           b + static_cast<uintptr_t>(input.elements() * input.item_bytes()) <= a;
  }

  Array out_, own_;
};

inline void require_same_shape(const char* op, const Array& first, const char* first_name, const Array& second,
                               const char* second_name) {
  if (first.same_shape(second)) return;
  throw py::value_error("[" + std::string(op) + "] " + first_name + " is " + first.shape_text() + ", " + second_name +
                        " is " + second.shape_text() + ": must be the same");
}

// A number given as an argument; `otherwise` if it was not given.
inline double number_or(const char* op, const char* name, PyObject* value, double otherwise) {
  if (!value) return otherwise;
  const double number = PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error("[" + std::string(op) + "] " + name + " is a " + Py_TYPE(value)->tp_name +
                         ": must be a number");
  }
  return number;
}
inline int64_t integer_or(const char* op, const char* name, PyObject* value, int64_t otherwise) {
  if (!value) return otherwise;
  const int64_t number = PyLong_AsLongLong(value);
  if (number == -1 && PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error("[" + std::string(op) + "] " + name + " is a " + Py_TYPE(value)->tp_name +
                         ": must be an integer of at most 64 bits");
  }
  return number;
}

}  // namespace gradring
