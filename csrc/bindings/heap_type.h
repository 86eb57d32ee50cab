// Types that native code makes.
#pragma once

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/pybind11.h>

namespace gradring {

// The spec's type, made by the first call. (The store is a static; a plain static type would not do: making one may give up
// the GIL, and whoever gets it may wait for the static's guard.)
inline PyTypeObject* heap_type(pybind11::gil_safe_call_once_and_store<PyTypeObject*>& type, PyType_Spec& spec) {
  const auto make = [&spec] { return reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec)); };
  return type.call_once_and_store_result(make).get_stored();
}

}  // namespace gradring
