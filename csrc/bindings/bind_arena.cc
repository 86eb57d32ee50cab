// Arenas as buffers: numpy.frombuffer(arena, dtype, count, offset) makes an array whose base keeps the memory alive.
#include <memory>

#include "bindings/bindings.h"
#include "runtime/arena.h"

namespace gradring {

namespace {

template <class Arena>
py::buffer_info bytes_of(Arena& arena) {
  return py::buffer_info(reinterpret_cast<uint8_t*>(arena.data()), static_cast<py::ssize_t>(arena.size()));
}

template <class Arena>
uintptr_t address_of(const Arena& arena) {
  return reinterpret_cast<uintptr_t>(arena.data());
}

}  // namespace

void bind_arena(py::module_& m) {
  py::class_<AlignedArena, std::shared_ptr<AlignedArena>>(
      m, "AlignedArena", py::buffer_protocol(),
      "Zeroed memory of this process that begins at a page. Its buffer is bytes, and can be written to.")
      .def(py::init<size_t>(), py::arg("bytes"))
      .def_buffer(&bytes_of<AlignedArena>)
      .def_property_readonly("nbytes", &AlignedArena::size)
      .def_property_readonly("address", &address_of<AlignedArena>);

  py::class_<SharedArena, std::shared_ptr<SharedArena>>(m, "SharedArena", py::buffer_protocol(),
                                                        "Zeroed anonymous memory that another process can map through "
                                                        "its descriptor. Its buffer is bytes, and can be written to.")
      .def(py::init<size_t>(), py::arg("bytes"))
      .def_static(
          "attach", [](int fd) { return std::make_shared<SharedArena>(SharedArena::attach(fd)); }, py::arg("fd"),
          "Map the arena whose descriptor another process has passed. The caller goes on owning the descriptor.")
      .def_buffer(&bytes_of<SharedArena>)
      .def("fileno", &SharedArena::fd, "The descriptor that another process needs for attach(). This arena owns it.")
      .def_property_readonly("nbytes", &SharedArena::size)
      .def_property_readonly("address", &address_of<SharedArena>);
}

}  // namespace gradring
