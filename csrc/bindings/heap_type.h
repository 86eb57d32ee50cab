// Python types that native code makes.
#pragma once

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/pybind11.h>

namespace gradring {

// The type of the spec, which the first call makes and puts into `store`, a static variable. (A static that is initialized by
// making the type could deadlock: making a type may release the GIL, and the thread that takes it may wait for the static.)
inline PyTypeObject* heap_type(pybind11::gil_safe_call_once_and_store<PyTypeObject*>& type, PyType_Spec& spec) {
  const auto make = [&spec] { return reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec)); };
  return type.call_once_and_store_result(make).get_stored();
}

}  // namespace gradring
