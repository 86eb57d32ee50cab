#include "bindings/row_functions.h"

#include <pybind11/numpy.h>

#include <cstring>
#include <string>
#include <utility>

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

class PythonFunction final : public RowFunction {
 public:
  PythonFunction(std::shared_ptr<const void> owner, PyObject* function, const FieldSpec& input, size_t out)
      : owner_(std::move(owner)), function_(function), shape_(input.shape), in_(input.row_bytes()), out_(out) {
    dtype_ = dtype_name(input.dtype);
  }

  const char* name() const noexcept override { return "Python"; }
  Status call(const void* from, void* to, const RowKey& key, uint64_t random) const noexcept override {
    const py::gil_scoped_acquire gil;
    try {
      // A copy: whoever keeps it must not see the next sample in it.
      py::array row(py::dtype(dtype_), shape_);
      if (in_ > 0) std::memcpy(row.mutable_data(), from, in_);
      const auto result = py::reinterpret_borrow<py::object>(function_)(row, key.sample, random).cast<py::array>();
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

 private:
  std::shared_ptr<const void> owner_;
  PyObject* function_;  // kept by owner_
  std::vector<int64_t> shape_;
  std::string dtype_;
  size_t in_;
  size_t out_;
};

class CallSource final : public Source {
 public:
  CallSource(std::shared_ptr<const void> owner, PyObject* function, int64_t length, std::vector<FieldSpec> fields)
      : owner_(std::move(owner)), function_(function), length_(length), fields_(std::move(fields)) {}

  int64_t length() const noexcept override { return length_; }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }

  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override {
    const py::gil_scoped_acquire gil;
    for (int64_t row = 0; row < request.rows; ++row) {
      *failed_row = row;
      try {
        const auto function = py::reinterpret_borrow<py::object>(function_);
        const auto arrays = function(request.samples[row]).cast<py::tuple>();
        if (arrays.size() != fields_.size()) return {Code::kInternal, "[loader] Callable lost a field"};
        for (size_t i = 0; i < fields_.size(); ++i) {
          const auto array = arrays[i].cast<py::array>();
          const size_t bytes = fields_[i].row_bytes();
          if (static_cast<size_t>(array.nbytes()) != bytes) return {Code::kInternal, "[loader] Callable lost a byte"};
          if (bytes > 0) std::memcpy(request.fields[i] + static_cast<size_t>(row) * bytes, array.data(), bytes);
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

 private:
  std::shared_ptr<const void> owner_;
  PyObject* function_;  // kept by owner_
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

std::shared_ptr<const Source> call_source(py::function checked, int64_t length, std::vector<FieldSpec> fields) {
  PyObject* function = checked.ptr();
  return std::make_shared<CallSource>(keep(std::move(checked)), function, length, std::move(fields));
}

std::shared_ptr<const RowFunction> native_function(uintptr_t address, uintptr_t user_data, py::object owner,
                                                   const FieldSpec& input, const FieldSpec& output) {
  return std::make_shared<NativeFunction>(reinterpret_cast<gradring_row_transform>(address),
                                          reinterpret_cast<void*>(user_data), keep(std::move(owner)), input.row_bytes(),
                                          output.row_bytes());
}

std::shared_ptr<const RowFunction> python_function(py::function checked, const FieldSpec& input,
                                                   const FieldSpec& output) {
  PyObject* function = checked.ptr();
  return std::make_shared<PythonFunction>(keep(std::move(checked)), function, input, output.row_bytes());
}

}  // namespace gradring
