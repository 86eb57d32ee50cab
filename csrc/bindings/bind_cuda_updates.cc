// Updates by gradients that a user's function computes on a device: see python/gradring/session/user_device.py.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/cuda_bindings.h"
#include "bindings/device_call.h"
#include "bindings/gil.h"
#include "program/cuda/library.h"
#include "program/cuda/updates.h"

namespace gradring {

namespace {

using Addresses = std::vector<uintptr_t>;
using Calls = std::vector<std::pair<py::list, int64_t>>;  // of each group the updates of its parameters, and its rate

class PyDeviceUpdates {
 public:
  PyDeviceUpdates(int device, const Calls& calls, int64_t most_rates, bool check, double limit, uintptr_t stream,
                  py::object lend) {
    UpdateOptions options;
    options.device = device, options.processors = cuda::processors_of(device);
    options.most_rates = most_rates, options.check = check, options.limit = limit;
    options.lender = lender_of(std::move(lend));
    std::vector<UpdateGroup> groups;
    for (const auto& [list, rate] : calls) {
      UpdateGroup group;
      group.rate = rate;
      for (const py::handle each : list) {
        const OpCall& call = each.cast<const DeviceCall&>().call();
        const CudaKernel* const kernel = cuda_kernel(*call.op);
        if (kernel == nullptr || kernel->spans.fill == nullptr) {
          throw Error(Code::kUnavailable, "[" + std::string(call.name) + "] has no CUDA kernel for many arrays");
        }
        if (group.spans.empty()) group.call = call, calls_.append(each);  // the call must live as long as the group
        kernel->spans.fill(call, &group.spans.emplace_back());
      }
      groups.push_back(std::move(group));
    }
    auto* const handle = reinterpret_cast<void*>(stream);
    const GilRelease release;
    updates_ = std::make_unique<DeviceUpdates>(std::move(groups), options, handle);
  }

  DeviceUpdates& updates() noexcept { return *updates_; }

 private:
  py::list calls_;
  std::unique_ptr<DeviceUpdates> updates_;
};

template <class T>
std::vector<T*> pointers(const Addresses& addresses) {
  std::vector<T*> result;
  for (const uintptr_t each : addresses) result.push_back(reinterpret_cast<T*>(each));
  return result;
}

// None while the report has not come.
py::object report_of(DeviceUpdates& updates, bool wait) {
  UpdateLedger found;
  bool come = false;
  {
    const GilRelease release;
    come = updates.take_report(wait, &found);
  }
  if (!come) return py::none();
  const char* const fault = found.record.fault == Fault::kNone        ? ""
                            : found.record.fault == Fault::kNonFinite ? "loss"
                                                                      : "gradient";
  py::array_t<double> losses(UpdateLedger::kLosses);
  std::copy(std::begin(found.losses), std::end(found.losses), losses.mutable_data());
  return py::make_tuple(fault, found.fault_entry, found.fault_span, losses);
}

}  // namespace

void bind_cuda_updates(py::module_& m) {
  py::class_<PyDeviceUpdates>(m, "DeviceUpdates", "Updates of all parameters of a user's own step, by few launches.")
      .def(py::init<int, const Calls&, int64_t, bool, double, uintptr_t, py::object>(), py::arg("device"),
           py::arg("groups"), py::arg("most_rates"), py::arg("check"), py::arg("limit"), py::arg("stream"),
           py::arg("lend") = py::none(),
           "Each group is a list of DeviceCalls of one rule and dtype, and the number of its learning rate. With "
           "`check`, gradients and losses that are not finite are faults; `limit` is the largest norm, negative: any. "
           "`lend` is that of DeviceArena.")
      .def_readonly_static("losses", &UpdateLedger::kLosses, "The most entries between two reports.")
      .def(
          "loss",
          [](PyDeviceUpdates& u, uintptr_t address, const std::string& dtype, int64_t entry, uintptr_t stream) {
            u.updates().loss(reinterpret_cast<const void*>(address), dtype_named(dtype), entry,
                             reinterpret_cast<void*>(stream));
          },
          py::arg("address"), py::arg("dtype"), py::arg("entry"), py::arg("stream"),
          "Keep the loss of an entry, a float32 or float64 on the device.")
      .def(
          "add",
          [](PyDeviceUpdates& u, const Addresses& sums, const Addresses& gradients, double samples, bool first,
             uintptr_t stream) {
            u.updates().add(pointers<void>(sums), pointers<const void>(gradients), samples, first,
                            reinterpret_cast<void*>(stream));
          },
          py::arg("sums"), py::arg("gradients"), py::arg("samples"), py::arg("first"), py::arg("stream"),
          "Add gradients times their samples to sums, which begin with the first ones.")
      .def(
          "update",
          [](PyDeviceUpdates& u, const Addresses& gradients, const std::vector<double>& rates, int64_t number,
             double weight, int64_t entry, uintptr_t stream) {
            u.updates().update(pointers<const void>(gradients), rates, {number, entry, weight, 0},
                               reinterpret_cast<void*>(stream));
          },
          py::arg("gradients"), py::arg("rates"), py::arg("number"), py::arg("weight"), py::arg("entry"),
          py::arg("stream"), "Update all parameters by these gradients, divided by the weight.")
      .def_property_readonly(
          "updated", [](PyDeviceUpdates& u) { return u.updates().updated(); },
          "How many parameters the last `update` has updated, if it has failed.")
      .def(
          "queue_report",
          [](PyDeviceUpdates& u, uintptr_t stream) { u.updates().queue_report(reinterpret_cast<void*>(stream)); },
          py::arg("stream"), "Queue a report of all entries so far.")
      .def(
          "take_report", [](PyDeviceUpdates& u, bool wait) { return report_of(u.updates(), wait); }, py::arg("wait"),
          "The report: the fault (\"\", \"loss\" or \"gradient\"), its entry and its parameter, and the losses, of "
          "which "
          "entry i has number i modulo their count. None if it has not come, and `wait` is false.")
      .def(
          "clear_fault",
          [](PyDeviceUpdates& u, uintptr_t stream) { u.updates().clear_fault(reinterpret_cast<void*>(stream)); },
          py::arg("stream"), "Let later entries run after a fault.");
}

}  // namespace gradring
