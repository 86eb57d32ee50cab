// The fast path from Python to a group's operations.
#pragma once

#include <memory>

#include "bindings/bindings.h"
#include "comm/group.h"

namespace gradring {

// A group as Python holds it, together with the arrays of operations that are still under way.
struct CommHandle {
  explicit CommHandle(std::shared_ptr<Group> held) : group(std::move(held)) {}

  std::shared_ptr<Group> group;
  py::object signal_of =
      py::none();  // the launcher may set a function from a rank to the signal that ended it, or None
  struct Held {
    std::shared_ptr<Request> request;
    py::object x, out;
  };
  std::mutex mutex;
  std::vector<Held> under_way;

  void keep(Held held);
  void release_finished();
};

// The handle that Python gets from a call with async_op=True.
struct CommWork {
  std::shared_ptr<CommHandle> handle;
  std::shared_ptr<Request> request;
  py::object result;
  bool settled = false;
};

// A function (kind, x, out, op, number, async_op[, dtype]) that runs one operation: `number` is the weight, root or
// peer. Returns None, or a CommWork.
py::object comm_caller(const std::shared_ptr<CommHandle>& handle);

// Waits without the GIL, and lets signal handlers run.
bool wait_for_work(CommWork& work, double timeout);

[[noreturn]] void raise_comm_failure(CommHandle& handle, Code code, const Call& call);

}  // namespace gradring
