#include "bindings/bindings.h"
#include "runtime/cpu.h"
#include "runtime/status.h"

namespace gradring {

void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      PyObject* type = PyExc_RuntimeError;
      switch (error.code()) {
        case Code::kInvalidArgument:
        case Code::kOutOfRange: type = PyExc_ValueError; break;
        case Code::kOutOfMemory: type = PyExc_MemoryError; break;
        case Code::kTimeout: type = PyExc_TimeoutError; break;
        case Code::kIo: type = PyExc_OSError; break;
        default: break;
      }
      PyErr_SetString(type, error.what());
    }
  });
}

void bind_runtime(py::module_& m) {
  m.attr("build_type") = GRADRING_BUILD_TYPE;
  m.def("usable_cores", &usable_cores, "Cores that this process may use.");
  m.def("detected_isa", [] { return isa_name(detected_isa()); });
  m.def("active_isa", [] { return isa_name(active_isa()); });
}

}  // namespace gradring
