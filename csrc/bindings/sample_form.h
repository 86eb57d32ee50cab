// SampleForm: how the samples of a Python function look, and the quick way from there into a batch.
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
  // Per field its name, numpy.dtype and shape.
  SampleForm(Kind kind, const py::list& looks);

  enum class Copied : uint8_t {
    kYes,
    kUnlike,  // at first sight: gradring.sources looks closer
    kError,   // Python has it set
  };
  // Copies the arrays of a sample to row `row` of each field. (No owners on the stack: see gil.h.)
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
