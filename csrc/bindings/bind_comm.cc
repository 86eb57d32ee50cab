// Groups, their memory and their operations.
#include <pybind11/stl.h>

#include <cmath>
#include <memory>

#include "bindings/bindings.h"
#include "bindings/comm_call.h"
#include "bindings/gil.h"
#include "bindings/python_waiter.h"
#include "comm/group.h"
#include "runtime/huge_pages.h"

namespace gradring {

namespace {

// Memory in a rank's data segment, for numpy.frombuffer. It is freed together with the last array over it.
struct CommBlock {
  CommBlock(Group& group, size_t bytes) : segments(group.segments()), data(group.allocate(bytes)), size(bytes) {}
  ~CommBlock() { segments->own.free(data); }
  CommBlock(const CommBlock&) = delete;
  CommBlock& operator=(const CommBlock&) = delete;

  std::shared_ptr<Segments> segments;
  void* data;
  size_t size;
};

std::chrono::nanoseconds timeout_of(double seconds) {
  if (!(seconds > 0))
    throw py::value_error("[comm] timeout is " + std::to_string(seconds) + ": must be positive seconds");
  return std::chrono::nanoseconds(static_cast<int64_t>(std::min(seconds, 1e9) * 1e9));
}

std::chrono::nanoseconds span_of(double seconds) {
  return std::chrono::nanoseconds(static_cast<int64_t>(std::clamp(seconds, 0.0, 1e9) * 1e9));
}

using Handle = std::shared_ptr<CommHandle>;

// Groups are closed without the GIL, because their threads may need the GIL to end.
Handle hold(std::shared_ptr<Group> group) {
  return Handle(new CommHandle(std::move(group)), [](CommHandle* handle) {
    {
      const GilRelease release;
      handle->group->close(Group::kDropPatience);
    }
    delete handle;
  });
}

py::object split(const Handle& handle, int color, int key) {
  std::shared_ptr<Group> group;
  Code code = Code::kOk;
  {
    PythonWaiter waiter(true);
    group = handle->group->split(color, key, &waiter, &code);
    waiter.settle();
  }
  if (code != Code::kOk) {
    Call call;
    call.agreement.kind = Collective::kSplit;
    raise_comm_failure(*handle, code, call);
  }
  return group ? py::cast(hold(std::move(group))) : py::none();
}

}  // namespace

void bind_comm(py::module_& m) {
  m.def("comm_segment", &ControlBlock::create, py::arg("size"), py::arg("data_bytes") = 0,
        "Make a control segment for a group of `size` ranks. Return its descriptor, which the caller owns. Each half "
        "of a rank's staging memory has data_bytes bytes; 0 means the default size.");
  m.def("comm_data_segment", &OwnSegment::create,
        "Make an empty data segment for one rank. Return its descriptor, which the caller owns.");
  m.def("huge_page_support", &huge_page_support,
        "Return 'collapsed', or the reason why shared memory gets no huge pages here.");

  py::class_<CommBlock>(m, "CommBlock", py::buffer_protocol(), "Memory that all ranks of a communicator can reach.")
      .def_buffer([](CommBlock& block) {
        return py::buffer_info(static_cast<uint8_t*>(block.data), static_cast<py::ssize_t>(block.size));
      })
      .def_property_readonly("nbytes", [](const CommBlock& block) { return block.size; });

  py::class_<CommWork>(m, "CommWork", "An operation that a group has begun.")
      .def("wait", &wait_for_work, py::arg("timeout"),
           "Wait at most `timeout` seconds, or without a limit if that is negative. Return whether the operation has "
           "ended.")
      .def_property_readonly("done", [](const CommWork& work) { return work.request->done(); })
      .def_property_readonly("result", [](const CommWork& work) { return work.result; });

  py::class_<StackTeller>(
      m, "StackTeller",
      "Receives questions from ranks that are about to give this rank up, and answers with its Python stack.")
      .def("await_question", &StackTeller::await_question, py::call_guard<GilRelease>(),
           "Wait until another rank asks, and return True. Return False when the communicator is closed.")
      .def("answer", &StackTeller::answer, py::arg("text"));

  py::class_<CommHandle, Handle>(m, "Group", "One rank's handle of a group of ranks.")
      .def(py::init([](int segment_fd, int rank, int size, uint64_t generation, const std::vector<int>& pidfds,
                       const std::vector<int>& data_fds, double timeout) {
             return hold(Group::join(segment_fd, rank, size, generation, pidfds, data_fds, timeout_of(timeout)));
           }),
           py::arg("segment_fd"), py::arg("rank"), py::arg("size"), py::arg("generation"), py::arg("pidfds"),
           py::arg("data_fds"), py::arg("timeout"),
           "Join a group, which duplicates the descriptors. pidfds[i] is the pidfd of rank i, or -1. data_fds[rank] "
           "must be the empty data segment of this rank.")
      .def_property_readonly("rank", [](const CommHandle& handle) { return handle.group->rank(); })
      .def_property_readonly("size", [](const CommHandle& handle) { return handle.group->size(); })
      .def_property_readonly(
          "origins", [](const CommHandle& handle) { return handle.group->origins(); },
          "The number that each rank has in the world from which this group was split off.")
      .def_property_readonly("closed", [](const CommHandle& handle) { return handle.group->closed(); })
      .def_readwrite("signal_of", &CommHandle::signal_of)
      .def("caller", &comm_caller)
      .def("split", &split, py::arg("color"), py::arg("key"))
      .def(
          "make_words",
          [](const CommHandle& handle, int ranks) {
            const GilRelease release;  // another thread may hold a lock that this needs, and wait for the GIL
            return handle.group->make_words(ranks);
          },
          py::arg("ranks"),
          "Make the control block of a new group of that many ranks in this rank's data segment. Return its offset.")
      .def(
          "join_words",
          [](const CommHandle& handle, const std::vector<int>& members, uint64_t offset) {
            std::shared_ptr<Group> group;
            {
              const GilRelease release;
              group = handle.group->join_words(members, offset);
            }
            return hold(std::move(group));
          },
          py::arg("members"), py::arg("offset"),
          "Join the group of these ranks. members[0] has made its control block with make_words().")
      .def(
          "allocate",
          [](const CommHandle& handle, size_t bytes) {
            const GilRelease release;
            return std::make_unique<CommBlock>(*handle.group, bytes);
          },
          py::arg("bytes"))
      .def(
          "set_activity",
          [](const CommHandle& handle, int activity, double patience, bool passing) {
            handle.group->set_activity(static_cast<Activity>(activity), span_of(patience), passing);
          },
          py::arg("activity"), py::arg("patience"), py::arg("passing") = false)
      .def("stack_teller", [](const CommHandle& handle) { return handle.group->stack_teller(); })
      .def("segment_bytes", [](const CommHandle& handle) { return handle.group->segments()->own.size(); })
      .def("allocated_bytes", [](const CommHandle& handle) { return handle.group->segments()->own.allocated(); })
      .def(
          "close",
          [](CommHandle& handle, double patience) {
            PythonWaiter waiter(true);
            handle.group->close(span_of(patience), &waiter);
            waiter.take_gil();
            handle.release_finished();  // even if a signal has ended the wait
            waiter.settle();
          },
          py::arg("patience"),
          "Wait at most `patience` seconds for operations under way, then give them up and leave the group.");

  m.def(
      "thread_groups",
      [](int n, double timeout) {
        std::vector<Handle> handles;
        for (auto& group : Group::of_threads(n, timeout_of(timeout))) handles.push_back(hold(std::move(group)));
        return handles;
      },
      py::arg("n"), py::arg("timeout"),
      "Make a group of n threads of this process. Return a list with one handle per thread.");
}

}  // namespace gradring
