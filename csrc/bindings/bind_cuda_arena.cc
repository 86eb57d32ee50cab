// What a device's engine reads and writes, in Python: the memory of a model's arenas, and batches that lie on the device.
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "bindings/cuda_bindings.h"
#include "bindings/feed.h"
#include "bindings/gil.h"
#include "cuda/arena.h"
#include "program/cuda/device_fields.h"
#include "runtime/status.h"

namespace gradring {

namespace {

using cuda::DeviceArena;

// Keeps a Python object until the last copy dies, on any thread.
std::shared_ptr<void> kept(py::object object) {
  return {object.release().ptr(), [](void* held) {
            if (Py_IsInitialized() == 0) return;
            with_python([&] { Py_DECREF(static_cast<PyObject*>(held)); });
          }};
}

// Whole arrays on the device as a feed. Python keeps their memory alive.
class DeviceFieldsFeed final : public PyFeed {
 public:
  DeviceFieldsFeed(const std::vector<std::pair<uintptr_t, size_t>>& fields, int64_t samples, int64_t batch_size)
      : source_(fields_of(fields), samples, batch_size), no_rows_(fields.size(), 0) {
    use(&source_);
  }

 private:
  static std::vector<DeviceFields::Field> fields_of(const std::vector<std::pair<uintptr_t, size_t>>& given) {
    if (given.size() > Batch::kMaxFields) {
      throw Error(Code::kInvalidArgument, "[Engine] a batch for training has at most 8 fields");
    }
    std::vector<DeviceFields::Field> fields;
    for (const auto& [address, row_bytes] : given)
      fields.push_back({reinterpret_cast<const std::byte*>(address), row_bytes});
    return fields;
  }
  // The host cannot read any row of them.
  const std::vector<size_t>& bytes_of_rows() const override { return no_rows_; }

  DeviceFields source_;
  std::vector<size_t> no_rows_;
};

}  // namespace

cuda::Lender lender_of(py::object lend) {
  if (lend.is_none()) return nullptr;
  return [function = kept(std::move(lend))](size_t bytes) -> cuda::BorrowedMemory {
    const py::gil_scoped_acquire hold;
    const py::object got = py::handle(static_cast<PyObject*>(function.get()))(bytes);
    if (got.is_none()) return {};
    auto [address, owner] = got.cast<std::pair<uintptr_t, py::object>>();
    return {reinterpret_cast<void*>(address), kept(std::move(owner))};
  };
}

void bind_cuda_arena(py::module_& m) {
  py::class_<DeviceArena, std::shared_ptr<DeviceArena>>(m, "DeviceArena", "Zeroed memory of a CUDA device.")
      .def(py::init([](int device, size_t bytes, py::object lend) {
             const cuda::Lender lender = lender_of(std::move(lend));
             const GilRelease release;
             return std::make_shared<DeviceArena>(device, bytes, lender);
           }),
           py::arg("device"), py::arg("bytes"), py::arg("lend") = py::none(),
           "`lend` is a function that gives memory of another allocator for a number of bytes, as (address, owner), or "
           "None.")
      .def_property_readonly("device", &DeviceArena::device)
      .def_property_readonly("nbytes", &DeviceArena::size)
      .def_property_readonly("address",
                             [](const DeviceArena& arena) { return reinterpret_cast<uintptr_t>(arena.data()); })
      .def(
          "read",
          [](const DeviceArena& arena, size_t offset, const py::buffer& to) {
            const py::buffer_info info = to.request(true);
            const auto bytes = static_cast<size_t>(info.size * info.itemsize);
            const GilRelease release;
            arena.read(offset, info.ptr, bytes);
          },
          py::arg("offset"), py::arg("to"), "Copy from byte `offset` on into an array without gaps.")
      .def(
          "write",
          [](DeviceArena& arena, size_t offset, const py::buffer& from) {
            const py::buffer_info info = from.request();
            const auto bytes = static_cast<size_t>(info.size * info.itemsize);
            const GilRelease release;
            arena.write(offset, info.ptr, bytes);
          },
          py::arg("offset"), py::arg("from_"), "Copy an array without gaps to byte `offset`.");

  const py::module_ core = py::module_::import("gradring._core");  // has the type that the next one is a kind of
  py::class_<DeviceFieldsFeed, PyFeed>(m, "DeviceFields", "Batches that are parts of arrays on the device.",
                                       py::dynamic_attr())
      .def(py::init<const std::vector<std::pair<uintptr_t, size_t>>&, int64_t, int64_t>(), py::arg("fields"),
           py::arg("samples"), py::arg("batch_size"),
           "Each field is (address, bytes of a row), and has the dtype that programs read.");
}

}  // namespace gradring
