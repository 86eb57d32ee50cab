// A loader's batches on a device, for Python: leases of the slots of a DeviceFeed.
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "bindings/cuda_bindings.h"
#include "bindings/feed.h"
#include "bindings/gil.h"
#include "cuda/device_feed.h"
#include "runtime/clock.h"
#include "runtime/forks.h"

namespace gradring {

namespace {

uintptr_t current_stream() {
  return py::module_::import("gradring.cuda.streams").attr("current_stream")().cast<uintptr_t>();
}

// A feed of the device, as long as its iterator or one of its batches lives.
struct HeldFeed {
  std::unique_ptr<cuda::DeviceFeed> feed;
  uint64_t born_in_fork = forks_so_far();

  bool forked() const noexcept { return born_in_fork != forks_so_far(); }
  ~HeldFeed() {
    if (forked()) (void)feed.release();  // the parent's: a forked process can make no call that frees it
  }
};

// The right to a batch's memory on the device. Its end gives the slot back, ordered behind the stream that was current when it was
// handed out, the one that is current now, and those of record_stream.
class SlotLease {
 public:
  SlotLease(std::shared_ptr<HeldFeed> held, const cuda::DeviceFeed::Handed& handed, uintptr_t stream)
      : held_(std::move(held)), slot_(handed.slot), data_(handed.data), streams_{stream} {}
  ~SlotLease() {
    if (held_->forked()) return;
    const py::error_scope kept;  // this may run while an exception is on its way
    try {
      streams_.push_back(current_stream());
    } catch (const py::error_already_set&) {
      // The interpreter is ending: no Python code has another stream any more.
    }
    std::vector<void*> all;
    for (const uintptr_t stream : streams_) all.push_back(reinterpret_cast<void*>(stream));
    held_->feed->release(slot_, all);
  }
  SlotLease(const SlotLease&) = delete;
  SlotLease& operator=(const SlotLease&) = delete;

  int device() const noexcept { return held_->feed->device(); }
  uintptr_t address() const noexcept { return reinterpret_cast<uintptr_t>(data_); }
  void record_stream(uintptr_t stream, py::object keep) {
    streams_.push_back(stream);
    keep_.push_back(std::move(keep));
  }

 private:
  std::shared_ptr<HeldFeed> held_;
  uint32_t slot_;
  std::byte* data_;
  std::vector<uintptr_t> streams_;
  std::vector<py::object> keep_;  // what keeps these streams alive
};

// An iterator's feed, and the host's feed that it reads. Its end gives the host's feed free, though batches may live on.
class PyDeviceFeed {
 public:
  PyDeviceFeed(const py::object& source, int64_t batch_size, int device, uint32_t most)
      : source_(source), held_(std::make_shared<HeldFeed>()) {
    auto& feed = source.cast<PyFeed&>();
    cuda::DeviceFeed::Options options;
    options.device = device, options.most = most;
    held_->feed = std::make_unique<cuda::DeviceFeed>(*feed.feed().source, feed.bytes_of_rows(), batch_size, options);
  }
  ~PyDeviceFeed() { end(); }

  cuda::DeviceFeed& feed() { return *held_->feed; }
  void end() noexcept {
    if (held_->forked()) return;
    const GilRelease release;
    held_->feed->end();
  }
  py::object next(double seconds);

 private:
  py::object source_;
  std::shared_ptr<HeldFeed> held_;
};

// What next returns: None at the end of the epoch, the number of slots if consumers keep all of them, else (lease, rows).
py::object PyDeviceFeed::next(double seconds) {
  if (held_->forked()) {
    throw Error(
        Code::kUnavailable,
        "[loader] this iterator was made before fork, and no forked process can use its parent's CUDA device: start "
        "a new process");
  }
  const uintptr_t stream = current_stream();
  cuda::DeviceFeed::Handed handed;
  Status status;
  {
    const GilRelease release;
    const Deadline deadline = deadline_in(std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)));
    status = held_->feed->next(&handed, reinterpret_cast<void*>(stream), deadline);
  }
  if (status.code() == Code::kTimeout) {
    // Only here, because an exception would lose a batch that was handed out.
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    return py::int_(held_->feed->held() ? held_->feed->slots() : 0);
  }
  if (!status.ok()) source_.cast<PyFeed&>().throw_for(status);
  if (handed.rows == 0) return py::none();
  return py::make_tuple(std::make_shared<SlotLease>(held_, handed, stream), handed.rows);
}

}  // namespace

void bind_cuda_feed(py::module_& m) {
  py::class_<SlotLease, std::shared_ptr<SlotLease>>(m, "SlotLease", "The right to a batch's memory on a device.")
      .def_property_readonly("device", &SlotLease::device)
      .def_property_readonly("address", &SlotLease::address)
      .def("record_stream", &SlotLease::record_stream, py::arg("stream"), py::arg("keep") = py::none(),
           "Say that work on this stream uses it, too. `keep` keeps the stream alive.");
  py::class_<PyDeviceFeed>(m, "DeviceFeed", "Brings a feed's batches to a device.")
      .def(py::init<const py::object&, int64_t, int, uint32_t>(), py::arg("source"), py::arg("batch_size"),
           py::arg("device"), py::arg("most"))
      .def_property_readonly("offsets", [](PyDeviceFeed& feed) { return feed.feed().offsets(); })
      .def_property_readonly("slots", [](PyDeviceFeed& feed) { return feed.feed().slots(); })
      .def_property_readonly("slot_bytes", [](PyDeviceFeed& feed) { return feed.feed().slot_bytes(); })
      .def("next", &PyDeviceFeed::next, py::arg("seconds"),
           "The next batch as (lease, rows), whose copy the current stream waits for; None at the end of the epoch; "
           "after "
           "so many seconds without one, the number of slots if consumers keep all of them, else 0.");
}

}  // namespace gradring
