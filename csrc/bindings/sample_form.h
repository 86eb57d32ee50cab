// SampleForm: the fields that the samples of a Python function have, and a fast copy of such samples into a batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bindings/lease.h"

namespace gradring {

class SampleForm {
 public:
  using Kind = BatchForm::Kind;
  // `fields` has, for each field, its name, its numpy.dtype and its shape.
  SampleForm(Kind kind, const py::list& looks);

  enum class Copied : uint8_t {
    kYes,
    kUnlike,  // the sample seems to differ: gradring.sources must convert it or refuse it
    kError,   // a Python error is set
  };
  // Copies the arrays of a sample to row `row` of each field. (It keeps no owners on the stack: gil.h says why.)
  Copied copy(PyObject* sample, std::byte* const* fields, int64_t row, bool streaming) const;
  Copied copy_field(size_t field, PyObject* value, std::byte* const* fields, int64_t row, bool streaming) const;

 private:
  struct Field {
    std::shared_ptr<const void> name, dtype;
    std::vector<Py_ssize_t> shape;
    size_t bytes;
  };
  bool like(const Field& field, PyObject* array) const;

  Kind kind_;
  std::vector<Field> fields_;
};

}  // namespace gradring
