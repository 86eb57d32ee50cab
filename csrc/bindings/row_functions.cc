#include "bindings/row_functions.h"

#include <pybind11/numpy.h>

#include <cstring>
#include <string>
#include <utility>

#include "bindings/gil.h"
#include "bindings/held_error.h"
#include "loader/streaming_copy.h"

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

Status left() noexcept { return {Code::kClosed, "[loader] the loader was left"}; }

// A function that somebody else keeps, where Python's garbage collector sees it: a function that knows its loader would
// otherwise never be freed.
class WeakFunction {
 public:
  explicit WeakFunction(const py::function& function) : weak_(keep(py::weakref(py::handle(function)))) {}
  // Calls it with these arguments, new references or null. Throws what it raises; null: it is gone. Needs the GIL.
  // Pointers, not owners: a thread that is unwound while it is in Python (see with_python) has lost the GIL.
  template <class... Arguments>
  PyObject* call(Arguments*... arguments) const {
    PyObject* function = PyObject_CallNoArgs(static_cast<PyObject*>(const_cast<void*>(weak_.get())));
    PyObject* result = nullptr;
    if (function && function != Py_None && (arguments && ...)) {
      result = PyObject_CallFunctionObjArgs(function, arguments..., nullptr);
    }
    const bool gone = function == Py_None;
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
    if (key.stop && key.stop->asked()) return left();
    return with_python([&]() -> Status { return call_it(from, to, key, random); });
  }

 private:
  Status call_it(const void* from, void* to, const RowKey& key, uint64_t random) const {
    try {
      // A copy: whoever keeps it must not see the next sample in it.
      py::array row(py::dtype(dtype_), shape_);
      if (in_ > 0) std::memcpy(row.mutable_data(), from, in_);
      PyObject* const out =
          function_.call(row.release().ptr(), PyLong_FromLongLong(key.sample), PyLong_FromUnsignedLongLong(random));
      if (!out) return left();
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
  CallSource(const py::function& function, int64_t length, std::vector<FieldSpec> fields)
      : function_(function), length_(length), fields_(std::move(fields)) {}

  int64_t length() const noexcept override { return length_; }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }

  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override {
    return with_python([&]() -> Status { return read_all(request, failed_row); });
  }

 private:
  Status read_all(const ReadRequest& request, int64_t* failed_row) const {
    for (int64_t row = 0; row < request.rows; ++row) {
      *failed_row = row;
      if (request.stop && request.stop->asked()) return left();
      try {
        PyObject* const out = function_.call(PyLong_FromLongLong(request.samples[row]));
        if (!out) return left();
        const auto arrays = py::reinterpret_steal<py::object>(out).cast<py::tuple>();
        if (arrays.size() != fields_.size()) return {Code::kInternal, "[loader] Callable lost a field"};
        for (size_t i = 0; i < fields_.size(); ++i) {
          const auto array = arrays[i].cast<py::array>();
          const size_t bytes = fields_[i].row_bytes();
          if (static_cast<size_t>(array.nbytes()) != bytes) return {Code::kInternal, "[loader] Callable lost a byte"};
          std::byte* to = request.fields[i] + static_cast<size_t>(row) * bytes;
          const auto* from = static_cast<const std::byte*>(array.data());
          if (request.streaming) {
            streaming_copy(to, from, bytes);
          } else if (bytes > 0) {
            std::memcpy(to, from, bytes);
          }
        }
      } catch (py::error_already_set& error) {
        error.restore();
        return hold_python_error();
      } catch (const std::exception& error) {
        return {Code::kInternal, "[loader] Callable failed: %s", error.what()};
      }
    }
    return {};
  }

  WeakFunction function_;
  int64_t length_;
  std::vector<FieldSpec> fields_;
};

}  // namespace

std::shared_ptr<const void> keep(py::object object) {
  return {object.release().ptr(), [](const void* kept) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire gil;
            Py_DECREF(static_cast<PyObject*>(const_cast<void*>(kept)));
          }};
}

std::shared_ptr<const Source> call_source(const py::function& checked, int64_t length, std::vector<FieldSpec> fields) {
  return std::make_shared<CallSource>(checked, length, std::move(fields));
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
