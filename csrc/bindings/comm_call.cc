#include "bindings/comm_call.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "bindings/comm_array.h"
#include "bindings/fast_call.h"
#include "bindings/gil.h"
#include "bindings/python_waiter.h"

namespace gradring {

namespace {

constexpr const char* kCapsuleName = "gradring.comm";
// Operations of at most this many bytes keep the GIL until they have to wait, because they are as short as releasing it.
constexpr size_t kBrief = size_t{16} << 10;

std::string is_given(const char* op, const char* argument, PyObject* value) {
  PyErr_Clear();
  return "[" + std::string(op) + "] " + argument + " is " + (value ? py::repr(value).cast<std::string>() : "None");
}

int integer_of(const char* op, const char* argument, PyObject* value, int low, int high, int not_this) {
  const long number = value ? PyLong_AsLong(value) : -1;
  const std::string expected = std::string(": must be the rank of ") +
                               (not_this >= 0 ? "another of the " : "one of the ") + std::to_string(high) + " ranks";
  if (!value || (number == -1 && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_OverflowError)))
    throw py::type_error(is_given(op, argument, value) + expected);
  if (number < low || number >= high || number == not_this)
    throw py::value_error(is_given(op, argument, value) + expected);
  return static_cast<int>(number);
}

Reduction reduction_of(const char* op, PyObject* name, Element element) {
  Py_ssize_t length = 0;
  const char* text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &length) : nullptr;
  Reduction reduction = Reduction::kSum;
  if (!text || !reduction_named(std::string_view(text, static_cast<size_t>(length)), &reduction)) {
    PyErr_Clear();
    throw py::value_error("[" + std::string(op) + "] op is " + py::repr(name).cast<std::string>() +
                          ": must be 'sum', 'mean', 'max', 'min' or 'prod'");
  }
  if (!can_reduce(element, reduction)) {
    throw py::type_error("[" + std::string(op) + "] x is of dtype " + element_name(element) + ", which has no op='" +
                         text + "': " +
                         (element == Element::kBool ? "use 'max' (any) or 'min' (all), or .astype an integer"
                                                    : "use 'sum', or .astype a float"));
  }
  return reduction;
}

void require_shape(const char* op, const CommArray& out, const CommArray& x, bool good, const std::string& rule) {
  if (out.element != x.element) {
    throw py::type_error("[" + std::string(op) + "] out is of dtype " + element_name(out.element) +
                         ": must be of x's, " + element_name(x.element));
  }
  if (!good)
    throw py::value_error("[" + std::string(op) + "] out is " + out.shape() + ", x is " + x.shape() + ": " + rule);
}

bool same_shape(const CommArray& a, const CommArray& b) {
  return a.axes() == b.axes() &&
         std::equal(a.proxy()->dimensions, a.proxy()->dimensions + a.axes(), b.proxy()->dimensions);
}

// Checks and converts the arguments of one call.
Call call_of(Group& group, Collective kind, PyObject* x, PyObject* out, PyObject* op, PyObject* number,
             PyObject* dtype) {
  Call call;
  call.agreement.kind = kind;
  if (kind == Collective::kBarrier) return call;
  const char* const name = collective_name(kind);
  const bool receives = kind == Collective::kBroadcast || kind == Collective::kReceive;
  int root = 0;
  if (kind == Collective::kBroadcast) root = integer_of(name, "root", number, 0, group.size(), -1);
  const bool in_place = !out && (kind == Collective::kAllReduce ||
                                 (receives && !(kind == Collective::kBroadcast && root == group.rank())));
  CommArray in = comm_array(name, "x", x, dtype, in_place);
  Agreement& a = call.agreement;
  a.element = in.element;
  a.count = static_cast<uint64_t>(in.operand.elements());
  call.out = in.operand;
  switch (kind) {
    case Collective::kAllReduce:
    case Collective::kReduceScatter: {
      a.reduction = reduction_of(name, op, in.element);
      if (number) {
        if (a.reduction != Reduction::kMean) {
          throw py::value_error(std::string("[") + name +
                                "] weight goes with op='mean' alone: the sum of x is divided by the sum of weight");
        }
        call.weight = PyFloat_AsDouble(number);
        if (call.weight == -1 && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_OverflowError))
          throw py::value_error("[" + std::string(name) + "] weight is too large for float64: must be a finite number");
        if (call.weight == -1 && PyErr_Occurred())
          throw py::type_error(is_given(name, "weight", number) + ": must be a number, or None");
        a.weighted = true;
      }
      break;
    }
    case Collective::kBroadcast: a.root = static_cast<uint8_t>(root); break;
    case Collective::kSend:
    case Collective::kReceive:
      call.peer = integer_of(name, kind == Collective::kSend ? "dst" : "src", number, 0, group.size(), group.rank());
      break;
    default: break;
  }
  if (out) {
    const CommArray to = comm_array(name, "out", out, dtype, true);
    if (kind == Collective::kAllReduce) {
      require_shape(name, to, in, same_shape(to, in), "must have x's shape");
    } else if (kind == Collective::kAllGather) {
      require_shape(name, to, in, to.operand.elements() == in.operand.elements() * group.size(),
                    "must have as many elements as x of every rank");
    } else {
      require_shape(name, to, in, to.operand.elements() * group.size() == in.operand.elements(),
                    "x must have as many elements as out, for every rank");
    }
    require_apart_or_same(name, to, in, kind == Collective::kAllReduce);
    call.out = to.operand;
  }
  call.in = std::move(in.operand);
  return call;
}

std::shared_ptr<Request> submit(Group& group, Call call) {
  try {
    return group.submit(std::move(call));
  } catch (const Error& error) {
    // Elsewhere, kClosed is about a loader.
    throw Error(error.code() == Code::kClosed ? Code::kUnavailable : error.code(), error.what());
  }
}

PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject*) noexcept {
  auto* held = static_cast<std::shared_ptr<CommHandle>*>(PyCapsule_GetPointer(self, kCapsuleName));
  if (!held) return nullptr;
  try {
    if (count < 6) throw py::type_error("[comm] too few arguments");
    const std::shared_ptr<CommHandle>& handle = *held;
    Group& group = *handle->group;
    const auto kind = static_cast<Collective>(PyLong_AsLong(args[0]));
    const bool async = args[5] == Py_True;
    if (!async && args[5] != Py_False) {
      throw py::type_error(is_given(collective_name(kind), "async_op", args[5]) + ": must be True or False");
    }
    PyObject* const out = given_or_null(args[2]);
    Call prepared = call_of(group, kind, args[1], out, args[3], given_or_null(args[4]),
                            count > 6 ? given_or_null(args[6]) : nullptr);
    if (!handle->under_way.empty()) handle->release_finished();
    if (async) {
      auto request = submit(group, std::move(prepared));
      const auto x = py::reinterpret_borrow<py::object>(args[1]);
      const auto to = py::reinterpret_borrow<py::object>(args[2]);
      handle->keep({request, x, to});
      py::object result = out ? to : x;
      return py::cast(std::make_unique<CommWork>(CommWork{handle, std::move(request), std::move(result)}))
          .release()
          .ptr();
    }
    Code code;
    {
      PythonWaiter waiter(group.has_threads() || prepared.in.bytes() > kBrief);
      code = group.run(prepared, &waiter);
      waiter.settle();
    }
    if (code != Code::kOk) raise_comm_failure(*handle, code, prepared);
    Py_RETURN_NONE;
  } catch (...) {
    raise_current_exception();
    return nullptr;
  }
}

PyMethodDef call_method = {"call", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)),
                           METH_FASTCALL | METH_KEYWORDS, "Run one operation of a communicator."};

}  // namespace

void CommHandle::keep(Held held) {
  const std::lock_guard lock(mutex);
  under_way.push_back(std::move(held));
}

void CommHandle::release_finished() {
  std::vector<Held> finished;  // destroyed after the lock is released, because freeing arrays may run Python code
  const std::lock_guard lock(mutex);
  for (size_t i = 0; i < under_way.size();) {
    if (!under_way[i].request->done()) {
      ++i;
      continue;
    }
    finished.push_back(std::move(under_way[i]));
    under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

py::object comm_caller(const std::shared_ptr<CommHandle>& handle) {
  auto* held = new std::shared_ptr<CommHandle>(handle);
  PyObject* const capsule = PyCapsule_New(held, kCapsuleName, [](PyObject* dying) {
    delete static_cast<std::shared_ptr<CommHandle>*>(PyCapsule_GetPointer(dying, kCapsuleName));
  });
  if (!capsule) {
    delete held;
    throw py::error_already_set();
  }
  PyObject* const function = PyCFunction_New(&call_method, capsule);
  Py_DECREF(capsule);
  if (!function) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

bool wait_for_work(CommWork& work, double timeout) {
  Group& group = *work.handle->group;
  const Request& request = *work.request;
  // A signal handler may run in a thread whose operation the communicator's thread waits for. There, this would never end.
  // In a forked child, no thread ends the operation.
  if ((group.executes() || group.forked()) && !(request.done() && request.code() == Code::kOk))
    raise_comm_failure(*work.handle, Code::kUnavailable, request.call());
  const Deadline deadline = timeout < 0 || timeout > 1e9
                                ? kNoDeadline
                                : deadline_in(std::chrono::nanoseconds(static_cast<int64_t>(timeout * 1e9)));
  bool done;
  {
    PythonWaiter waiter(false);
    done = work.request->wait(deadline, &waiter);
    waiter.settle();
  }
  if (!done) return false;
  work.handle->release_finished();
  Code code;
  {
    const GilRelease release;
    code = group.settle(*work.request);
  }
  if (code != Code::kOk) raise_comm_failure(*work.handle, code, work.request->call());
  return true;
}

void raise_comm_failure(CommHandle& handle, Code code, const Call& failed) {
  const Group& group = *handle.group;
  std::string text;
  GroupFault fault;
  {
    const GilRelease release;  // another thread may be in an operation, and need the GIL to end it
    text = group.message(code, failed);
    if (code != Code::kClosed && code != Code::kUnavailable) fault = group.fault();
  }
  if (code == Code::kInvalidArgument) throw py::value_error(text);
  if (code == Code::kOutOfMemory) throw Error(code, text);
  py::module_::import("gradring.comm._failure")
      .attr("raise_failure")(static_cast<int>(code), text, fault.failure.rank, collective_name(failed.agreement.kind),
                             fault.sequence, fault.exit_status,
                             fault.failure.reason == Failure::Reason::kExited ? handle.signal_of : py::none());
  throw Error(Code::kInternal, text);
}

}  // namespace gradring
