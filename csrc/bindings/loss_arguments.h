// What the doors of the losses share: reduction= and the gradient that a vjp starts from.
#pragma once

#include <string>

#include "bindings/elementwise.h"

namespace gradring {

enum class Reduction { kSample, kMean, kSum };

inline Reduction reduction_argument(const char* op, PyObject* value, Reduction otherwise) {
  if (!value) return otherwise;
  if (PyUnicode_Check(value)) {
    if (PyUnicode_CompareWithASCIIString(value, "sample") == 0) return Reduction::kSample;
    if (PyUnicode_CompareWithASCIIString(value, "mean") == 0) return Reduction::kMean;
    if (PyUnicode_CompareWithASCIIString(value, "sum") == 0) return Reduction::kSum;
  }
  throw py::value_error("[" + std::string(op) + "] reduction is " + py::repr(py::handle(value)).cast<std::string>() +
                        ": must be 'sample', 'mean' or 'sum'");
}

// The gradient by the losses: one number for all samples, or one for each.
struct Cotangent {
  double number = 1;
  Array samples;  // empty: number counts

  Cotangent(const char* op, const char* name, PyObject* value, Reduction reduction, const Array& like,
            int sample_dimensions, int64_t rows) {
    const auto& api = py::detail::npy_api::get();
    const bool array = api.PyArray_Check_(value) && py::detail::array_proxy(value)->nd > 0;
    if (!array) {
      number = number_or(op, name, value, 1);
    } else if (reduction != Reduction::kSample) {
      throw py::value_error("[" + std::string(op) + "] " + name +
                            " is an array: must be a number, because the loss is one; or give reduction='sample'");
    } else {
      samples = Array::dense(op, name, value);
      require_same_float(op, samples, name, like, "the prediction");
      bool same = samples.dimensions() == sample_dimensions;
      for (int axis = 0; same && axis < sample_dimensions; ++axis) same = samples.size(axis) == like.size(axis);
      if (!same) {
        throw py::value_error("[" + std::string(op) + "] " + name + " is " + samples.shape_text() +
                              ": must have one number for each of " + std::to_string(rows) + " samples of " +
                              like.shape_text());
      }
    }
    if (reduction == Reduction::kMean) number /= static_cast<double>(rows);
  }

  template <class T>
  const T* data() const noexcept {
    return samples ? samples.data<const T>() : nullptr;
  }
};

inline PyObject* reduced(double sum, int64_t rows, Reduction reduction) {
  return PyFloat_FromDouble(reduction == Reduction::kSum ? sum : sum / static_cast<double>(rows));
}

inline void require_no_out(const char* op, PyObject* out) {
  if (!given_or_null(out)) return;
  throw py::value_error("[" + std::string(op) +
                        "] out is given: the mean and the sum are numbers, out is for reduction='sample'");
}

}  // namespace gradring
