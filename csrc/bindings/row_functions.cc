#include "bindings/row_functions.h"

#include <pybind11/numpy.h>

#include <cstring>
#include <string>
#include <utility>

#include "bindings/gil.h"
#include "bindings/held_error.h"

namespace gradring {

namespace {

class NativeFunction final : public RowFunction {
 public:
  NativeFunction(gradring_row_transform function, void* user_data, std::shared_ptr<const void> owner, size_t in,
                 size_t out)
      : function_(function),
        user_data_(user_data),
        owner_(std::move(owner)),
        in_(static_cast<int64_t>(in)),
        out_(static_cast<int64_t>(out)) {}

  const char* name() const noexcept override { return "Native"; }
  Status call(const void* from, void* to, const RowKey& key, uint64_t random) const noexcept override {
    const int result = function_(from, in_, to, out_, key.sample, random, user_data_);
    if (result == 0) return {};
    return {Code::kInvalidArgument, "[loader] the native transform returned %d for sample %lld", result,
            static_cast<long long>(key.sample)};
  }

 private:
  gradring_row_transform function_;
  void* user_data_;
  std::shared_ptr<const void> owner_;
  int64_t in_;
  int64_t out_;
};

Status loader_left() noexcept { return {Code::kClosed, "[loader] the loader's iteration has ended"}; }

// A weak reference to a Python function. Its owner is a Python object that the garbage collector sees; if native code owned the
// function, one that refers to its loader would never be freed.
class WeakFunction {
 public:
  explicit WeakFunction(const py::function& function) : weak_(keep(py::weakref(py::handle(function)))) {}
  // Returns a new reference, or null if the function no longer exists. Needs the GIL. It returns a pointer and no owner, because a
  // thread that is unwound while it runs Python code (see with_python) has lost the GIL.
  PyObject* get() const {
    PyObject* const function = PyObject_CallNoArgs(static_cast<PyObject*>(const_cast<void*>(weak_.get())));
    if (!function) throw py::error_already_set();
    if (function != Py_None) return function;
    Py_DECREF(function);
    return nullptr;
  }
  // Calls the function with these arguments, which are new references or null. Throws what it raises; returns null if
  // it no longer exists. Needs the GIL.
  template <class... Arguments>
  PyObject* call(Arguments*... arguments) const {
    PyObject* const function = get();
    PyObject* result = nullptr;
    if (function && (arguments && ...)) result = PyObject_CallFunctionObjArgs(function, arguments..., nullptr);
    const bool gone = !function;
    Py_XDECREF(function);
    (Py_XDECREF(arguments), ...);
    if (!result && !gone) throw py::error_already_set();
    return result;
  }

 private:
  std::shared_ptr<const void> weak_;
};

class PythonFunction final : public RowFunction {
 public:
  PythonFunction(const py::function& function, const FieldSpec& input, size_t out)
      : function_(function), shape_(input.shape), in_(input.row_bytes()), out_(out) {
    dtype_ = dtype_name(input.dtype);
  }

  const char* name() const noexcept override { return "Python"; }
  Status call(const void* from, void* to, const RowKey& key, uint64_t random) const noexcept override {
    if (key.stop && key.stop->asked()) return loader_left();
    return with_python([&]() -> Status { return call_it(from, to, key, random); });
  }

 private:
  Status call_it(const void* from, void* to, const RowKey& key, uint64_t random) const {
    try {
      // Pass a copy, because the function may keep the array, and must not find the next sample in it.
      py::array row(py::dtype(dtype_), shape_);
      if (in_ > 0) std::memcpy(row.mutable_data(), from, in_);
      PyObject* const out =
          function_.call(row.release().ptr(), PyLong_FromLongLong(key.sample), PyLong_FromUnsignedLongLong(random));
      if (!out) return loader_left();
      const auto result = py::reinterpret_steal<py::object>(out).cast<py::array>();
      if (static_cast<size_t>(result.nbytes()) != out_) {
        return {Code::kInternal, "[loader] a Python transform returned %zd bytes, expected %zu", result.nbytes(), out_};
      }
      if (out_ > 0) std::memcpy(to, result.data(), out_);
      return {};
    } catch (py::error_already_set& error) {
      error.restore();
      return hold_python_error();
    } catch (const std::exception& error) {
      return {Code::kInternal, "[loader] a Python transform failed: %s", error.what()};
    }
  }

  WeakFunction function_;
  std::vector<int64_t> shape_;
  std::string dtype_;
  size_t in_;
  size_t out_;
};

class CallSource final : public Source {
 public:
  CallSource(const py::function& checked, int64_t length, std::vector<FieldSpec> fields, SampleForm form, bool keyed)
      : checked_(checked), length_(length), fields_(std::move(fields)), form_(std::move(form)), keyed_(keyed) {}

  int64_t length() const noexcept override { return length_; }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }

  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override {
    return with_python([&]() -> Status {
      try {
        PyObject* const checked = checked_.get();
        if (!checked) return loader_left();
        PyObject* const function = PyObject_GetAttrString(checked, "fn");
        const Status status = function ? read_all(checked, function, request, failed_row) : hold_python_error();
        Py_XDECREF(function);
        Py_DECREF(checked);
        return status;
      } catch (py::error_already_set& error) {
        error.restore();
        return hold_python_error();
      }
    });
  }

 private:
  using Copied = SampleForm::Copied;

  Status read_all(PyObject* checked, PyObject* function, const ReadRequest& request, int64_t* failed_row) const {
    for (int64_t row = 0; row < request.rows; ++row) {
      *failed_row = row;
      if (request.stop && request.stop->asked()) return loader_left();
      PyObject* const number = PyLong_FromLongLong(request.samples[row]);
      PyObject* const sample = number ? call(function, number, request) : nullptr;
      Copied copied = Copied::kError;
      if (sample) copied = form_.copy(sample, request.fields, row, request.streaming);
      if (copied == Copied::kUnlike) copied = copy_checked(checked, number, sample, request, row);
      Py_XDECREF(sample);
      Py_XDECREF(number);
      if (copied == Copied::kError) return hold_python_error();
    }
    return {};
  }

  PyObject* call(PyObject* function, PyObject* number, const ReadRequest& request) const {
    if (!keyed_) return PyObject_CallOneArg(function, number);
    PyObject* const seed = PyLong_FromUnsignedLongLong(request.seed);
    PyObject* const epoch = seed ? PyLong_FromUnsignedLongLong(request.epoch) : nullptr;
    PyObject* const sample = epoch ? PyObject_CallFunctionObjArgs(function, number, seed, epoch, nullptr) : nullptr;
    Py_XDECREF(seed);
    Py_XDECREF(epoch);
    return sample;
  }

  // Converts a sample whose fields do not have the dtypes and shapes of the first sample, or raises an error that says what differs.
  Copied copy_checked(PyObject* checked, PyObject* number, PyObject* sample, const ReadRequest& request,
                      int64_t row) const {
    PyObject* const arrays = PyObject_CallFunctionObjArgs(checked, number, sample, nullptr);
    if (!arrays) return Copied::kError;
    Copied copied = Copied::kYes;
    for (size_t i = 0; i < fields_.size() && copied == Copied::kYes; ++i) {
      PyObject* const array = PyTuple_Check(arrays) ? PyTuple_GetItem(arrays, static_cast<Py_ssize_t>(i)) : nullptr;
      copied = array ? form_.copy_field(i, array, request.fields, row, request.streaming) : Copied::kUnlike;
    }
    if (copied == Copied::kUnlike) PyErr_SetString(PyExc_SystemError, "[loader] Callable lost a field");
    Py_DECREF(arrays);
    return copied == Copied::kYes ? copied : Copied::kError;
  }

  WeakFunction checked_;
  int64_t length_;
  std::vector<FieldSpec> fields_;
  SampleForm form_;
  bool keyed_;  // the function is called with the seed and the epoch too
};

}  // namespace

std::shared_ptr<const void> keep(py::object object) {
  return {object.release().ptr(), [](const void* kept) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire gil;
            Py_DECREF(static_cast<PyObject*>(const_cast<void*>(kept)));
          }};
}

std::shared_ptr<const Source> call_source(const py::function& checked, int64_t length, std::vector<FieldSpec> fields,
                                          SampleForm form, bool keyed) {
  return std::make_shared<CallSource>(checked, length, std::move(fields), std::move(form), keyed);
}

std::shared_ptr<const RowFunction> native_function(uintptr_t address, uintptr_t user_data, py::object owner,
                                                   const FieldSpec& input, const FieldSpec& output) {
  return std::make_shared<NativeFunction>(reinterpret_cast<gradring_row_transform>(address),
                                          reinterpret_cast<void*>(user_data), keep(std::move(owner)), input.row_bytes(),
                                          output.row_bytes());
}

std::shared_ptr<const RowFunction> python_function(const py::function& checked, const FieldSpec& input,
                                                   const FieldSpec& output) {
  return std::make_shared<PythonFunction>(checked, input, output.row_bytes());
}

}  // namespace gradring
