// The module _cuda. Python loads it only for a CUDA device, and it imports without a driver.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/cuda_bindings.h"
#include "cuda/devices.h"
#include "cuda/pinning.h"
#include "ops/cuda_kernels.h"
#include "ops/register_cuda.h"
#ifdef GRADRING_SOFTWARE_DEVICE
#include "cuda/software/control.h"
#endif

namespace gradring {

namespace {

py::object describe(const cuda::Problem& problem) {
  if (problem.code == 0) return py::none();
  py::dict result;
  result["code"] = problem.code;
  result["call"] = problem.call;
  result["name"] = problem.name;
  result["text"] = problem.text;
  return result;
}

py::dict devices() {
  cuda::Devices found;
  {
    const py::gil_scoped_release free;
    found = cuda::find_devices();
  }
  py::list list;
  for (const cuda::Device& each : found.devices) {
    py::dict device;
    device["name"] = each.name;
    device["capability"] = py::make_tuple(each.major, each.minor);
    device["processors"] = each.processors;
    device["bytes"] = each.bytes;
    list.append(device);
  }
  py::dict result;
  result["problem"] = describe(found.problem);
  result["driver_version"] = found.driver_version;
  result["runtime_version"] = found.runtime_version;
  result["software"] = found.software;
  result["devices"] = list;
  return result;
}

// Returns the names of the ops that have a CUDA kernel.
py::list kernels() {
  py::list names;
  for (const OpSchema* op : all_ops()) {
    if (cuda_kernel(*op)) names.append(op->name);
  }
  return names;
}

}  // namespace

}  // namespace gradring

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA devices, and kernels for the ops of gradring._core. Imports without a driver.";
  gradring::register_all_cuda_kernels();
  gradring::bind_cuda_arena(m);
  gradring::bind_cuda_arrays(m);
  gradring::bind_cuda_engine(m);
  gradring::bind_cuda_feed(m);
  gradring::bind_cuda_ops(m);
  gradring::bind_cuda_updates(m);
  gradring::cuda::offer_host_pinner();
  m.def("kernels", &gradring::kernels, "The names of the ops that have a CUDA kernel.");
  m.attr("architectures") = GRADRING_CUDA_ARCHITECTURES;
#ifdef GRADRING_SOFTWARE_DEVICE
  m.def("software_calls", &gradring::software::calls, "How often each call of the CUDA runtime was made. For tests.");
#endif
  m.def("devices", &gradring::devices, "Devices, versions of driver and runtime, and what is wrong, if anything.");
  m.def(
      "try_device",
      [](int device) {
        gradring::cuda::Problem problem;
        {
          const py::gil_scoped_release free;
          problem = gradring::cuda::try_device(device);
        }
        return gradring::describe(problem);
      },
      py::arg("device"), "Run one small kernel; None if it works, else what is wrong.");
}
