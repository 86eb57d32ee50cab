// Functions that come from Python: C function pointers and callables from row to row, and callables that make samples.
#pragma once

#include <memory>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/sample_form.h"
#include "gradring/row_transform.h"
#include "loader/transform.h"

namespace gradring {

// `address` is that of a gradring_row_transform.
std::shared_ptr<const RowFunction> native_function(uintptr_t address, uintptr_t user_data, py::object owner,
                                                   const FieldSpec& input, const FieldSpec& output);

// `checked` is a function of gradring.transforms that calls the user's function, checks what it returns, and returns a
// C-contiguous array of the output's dtype and shape. It is held weakly: the caller must keep it alive.
std::shared_ptr<const RowFunction> python_function(const py::function& checked, const FieldSpec& input,
                                                   const FieldSpec& output);

// checked.fn(number) returns a sample, or checked.fn(number, seed, epoch) if `keyed`. A sample that seems to differ from `form` is
// passed to checked(number, sample), which returns a tuple of C-contiguous arrays of that form, or raises. It is held weakly too.
std::shared_ptr<const Source> call_source(const py::function& checked, int64_t length, std::vector<FieldSpec> fields,
                                          SampleForm form, bool keyed);

// Keeps a Python object alive from native code. It releases the object with the GIL, or never if the interpreter has ended.
std::shared_ptr<const void> keep(py::object object);

}  // namespace gradring
