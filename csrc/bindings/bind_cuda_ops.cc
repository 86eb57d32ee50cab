// Eager calls of ops on arrays of a device: see python/gradring/ops/_device.py.
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "bindings/cuda_bindings.h"
#include "bindings/device_call.h"

namespace gradring {

namespace {

constexpr int kMostDevices = 64;

}  // namespace

// The GIL guards the facts. They stay until the process ends, because arrays on the device may live as long.
const DeviceFacts& device_facts(int device, uintptr_t library) {
  static auto* const all = new std::array<DeviceFacts, kMostDevices>;
  if (device < 0 || device >= kMostDevices) throw Error(Code::kInvalidArgument, "[op] there is no such device");
  DeviceFacts& facts = (*all)[static_cast<size_t>(device)];
  if (!facts.products) {
    facts.processors = cuda::processors_of(device);
    facts.products = cuda::make_products(device, reinterpret_cast<void*>(library), false);
  }
  return facts;
}

void bind_cuda_ops(py::module_& m) {
  py::class_<DeviceCall>(m, "DeviceCall", "A call of an op on a device's arrays.")
      .def(py::init<const std::string&, std::string, const std::vector<std::pair<std::string, std::string>>&,
                    const std::vector<std::variant<int64_t, double>>&>(),
           py::arg("op"), py::arg("name"), py::arg("names"), py::arg("attributes"))
      .def("set", &DeviceCall::set, py::arg("operand"), py::arg("address"), py::arg("dtype"), py::arg("shape"),
           py::arg("strides"))
      .def("is_apart", &DeviceCall::is_apart, py::arg("operand"))
      .def("check", &DeviceCall::check)
      .def_property_readonly("ranks_fit", &DeviceCall::ranks_fit)
      .def("result", &DeviceCall::result, py::arg("operand"))
      .def("run", &DeviceCall::run, py::arg("device"), py::arg("library"), py::arg("stream"))
      .def("number", &DeviceCall::number, py::arg("operand"), py::arg("totals"));
}

}  // namespace gradring
