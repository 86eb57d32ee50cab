// Arrays on a CUDA device in Python: memory from the pool, copies, streams and their order, and tensors of DLPack.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bindings/cuda_bindings.h"
#include "bindings/dlpack.h"
#include "bindings/gil.h"
#include "cuda/failure.h"
#include "cuda/memory.h"
#include "cuda/pool.h"
#include "cuda/stream.h"
#include "cuda/strided.h"
#include "runtime/forks.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr const char* kWho = "cuda.Array";

void check(int code) {
  if (code != 0) cuda::throw_failure(kWho, code);
}

void* stream_of(uintptr_t stream) { return reinterpret_cast<void*>(stream); }

// 0 and 1 are both the legacy default stream.
void* plain(uintptr_t stream) { return stream_of(stream == 1 ? 0 : stream); }

// A stream that is not ordered with the legacy stream. It is never destroyed, because arrays and other libraries may still have
// its handle: when its owner dies, the next owner gets it. The GIL guards the lists.
class OwnStream {
 public:
  OwnStream(int device, bool high) : device_(device), high_(high) {
    const cuda::OnDevice on("cuda.Stream", device);
    std::vector<cuda::Stream>& idle = idle_of(device, high);
    if (idle.empty()) {
      stream_ = cuda::make_stream("cuda.Stream", high ? cuda::Priority::kHigh : cuda::Priority::kUsual);
      known().insert(stream_.get());
      return;
    }
    stream_ = std::move(idle.back());
    idle.pop_back();
  }
  ~OwnStream() {
    if (stream_ && !closed()) idle_of(device_, high_).push_back(std::move(stream_));
  }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;

  int device() const noexcept { return device_; }
  uintptr_t handle() const noexcept { return reinterpret_cast<uintptr_t>(stream_.get()); }

  // Destroys the idle streams as the process ends; the others die with their owners.
  static void close() noexcept {
    closed() = true;
    all_idle().clear();
  }

  // Whether a handle is valid until the process ends.
  static bool lasts(uintptr_t handle) { return plain(handle) == nullptr || known().count(stream_of(handle)) == 1; }

 private:
  using Idle = std::map<std::pair<int, bool>, std::vector<cuda::Stream>>;
  static Idle& all_idle() {
    static auto* const all = new Idle;
    return *all;
  }
  static std::vector<cuda::Stream>& idle_of(int device, bool high) { return all_idle()[{device, high}]; }
  static bool& closed() {
    static bool is_closed = false;
    return is_closed;
  }
  static std::set<void*>& known() {
    static auto* const all = new std::set<void*>;
    return *all;
  }

  int device_;
  bool high_;
  cuda::Stream stream_;
};

// A block of the pool, which its destructor returns. The next user of the block waits for all work that the streams of this
// block have queued by then. `keep` keeps a stream alive.
class DeviceBlock {
 public:
  DeviceBlock(int device, size_t bytes, uintptr_t stream, py::object keep)
      : pool_(cuda::MemoryPool::of(device)),
        bytes_(bytes),
        stream_(plain(stream)),
        block_(pool_.take(bytes, stream_)),
        born_in_fork_(forks_so_far()) {
    keep_.push_back(std::move(keep));
  }
  ~DeviceBlock() {
    if (born_in_fork_ != forks_so_far()) {
      // The parent's memory and streams; a forked process can make no call that frees them.
      new cuda::MemoryPool::Block(std::move(block_));
      new std::vector<py::object>(std::move(keep_));
      return;
    }
    if (is_captured()) return;
    // If the pool does not get the block, its destructor frees it, which waits for all work on the device.
    if (shared_ || !std::all_of(others_.begin(), others_.end(), [this](void* each) { return order(each); })) return;
    pool_.give(std::move(block_), stream_);
  }
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  int device() const noexcept { return pool_.device(); }
  size_t bytes() const noexcept { return bytes_; }
  uintptr_t address() const noexcept { return reinterpret_cast<uintptr_t>(block_.memory.data()); }
  // Work on this stream uses the block, too.
  void record_stream(uintptr_t stream, py::object keep) {
    void* const other = plain(stream);
    if (other == stream_ || std::find(others_.begin(), others_.end(), other) != others_.end()) return;
    keep_.push_back(std::move(keep));
    others_.push_back(other);
  }
  // Streams that may be destroyed before this object use the block, too: it does not go back to the pool.
  void share() noexcept { shared_ = true; }

 private:
  // Sets the block aside if one of its streams captures a graph, which may read it at every launch: to wait for that stream would
  // draw another one into the capture, and to free the block would end it.
  bool is_captured() noexcept {
    std::vector<void*> all = others_;
    all.push_back(stream_);
    for (void* const each : all) {
      int code = 0;
      if (!cuda::is_capturing(each, &code)) continue;
      pool_.give(std::move(block_), each);
      return true;
    }
    return false;
  }
  bool order(void* before) noexcept {
    try {
      const cuda::OnDevice on(kWho, device());
      cuda::order(kWho, before, stream_);
      return true;
    } catch (const Error&) {
      return false;  // the stream was destroyed, or the device is lost
    }
  }

  cuda::MemoryPool& pool_;
  size_t bytes_;
  void* stream_;
  std::vector<void*> others_;
  std::vector<py::object> keep_;
  bool shared_ = false;
  cuda::MemoryPool::Block block_;
  uint64_t born_in_fork_;
};

// Marks the end of what a stream has to do now.
class Mark {
 public:
  Mark(int device, uintptr_t stream) {
    const cuda::OnDevice on(kWho, device);
    event_ = cuda::make_event(kWho);
    check(cuda::record(event_, plain(stream)));
  }
  // A failure ends all work, too.
  bool is_done() const noexcept {
    int code = 0;
    return cuda::is_done(event_, &code) || code != 0;
  }

 private:
  cuda::Event event_;
};

// A graph of what a function queues on a stream. The function runs while the stream captures.
class Recorded {
 public:
  Recorded(int device, uintptr_t stream, const py::function& queue, int mode) : device_(device) {
    const cuda::OnDevice on(kWho, device);
    std::exception_ptr error;
    const int code = cuda::capture(
        stream_of(stream),
        [&]() -> int {
          try {
            queue();
          } catch (...) {
            error = std::current_exception();
          }
          return 0;
        },
        &graph_, static_cast<cuda::CaptureMode>(std::clamp(mode, 0, 2)));
    if (error) std::rethrow_exception(error);
    check(code);
  }
  void launch(uintptr_t stream) {
    const cuda::OnDevice on(kWho, device_);
    check(cuda::launch(graph_, stream_of(stream)));
  }

 private:
  int device_;
  cuda::Graph graph_;
};

py::tuple locate(uintptr_t address, size_t bytes) {
  int other = 0;
  const cuda::Place place = cuda::place_of(kWho, stream_of(address), bytes, 0, &other);
  switch (place) {
    case cuda::Place::kDevice: return py::make_tuple("device", 0);
    case cuda::Place::kOtherDevice: return py::make_tuple("device", other);
    case cuda::Place::kPinnedHost: return py::make_tuple("pinned", -1);
    default: return py::make_tuple("none", -1);
  }
}

// Copies between the host and the device behind what the stream has to do, and returns when that is done.
void transfer(cuda::Way way, int device, uintptr_t stream, uintptr_t address, void* host, size_t bytes) {
  if (bytes == 0) return;
  const GilRelease release;
  const cuda::OnDevice on(kWho, device);
  const bool down = way == cuda::Way::kToHost;
  void* const place = stream_of(address);
  cuda::require_no_capture(kWho, stream_of(stream));
  check(cuda::copy(way, down ? host : place, down ? place : host, bytes, stream_of(stream)));
  check(cuda::synchronize(stream_of(stream)));
}

void copy(int device, uintptr_t stream, uintptr_t to, const std::vector<int64_t>& to_strides, uintptr_t from,
          const std::vector<int64_t>& from_strides, const std::vector<int64_t>& shape, size_t item) {
  const cuda::OnDevice on(kWho, device);
  check(cuda::queue_strided_copy({stream_of(to), to_strides.data()}, {stream_of(from), from_strides.data()},
                                 shape.data(), static_cast<int>(shape.size()), item, stream_of(stream)));
}

py::capsule to_dlpack(py::object owner, uintptr_t address, std::vector<int64_t> shape, std::vector<int64_t> strides,
                      std::pair<int, int> dtype, int device, bool read_only, bool copied, bool versioned) {
  dlpack::Exported e;
  e.owner = std::move(owner), e.address = address;
  e.shape = std::move(shape), e.strides = std::move(strides);
  e.dtype = {static_cast<uint8_t>(dtype.first), static_cast<uint8_t>(dtype.second), 1};
  e.device = device, e.read_only = read_only, e.copied = copied;
  return dlpack::make_capsule(std::move(e), versioned);
}

void bind_tensor(py::module_& m) {
  using dlpack::Imported;
  py::class_<Imported>(m, "DlpackTensor", "A tensor that came in a capsule of DLPack, which it keeps alive.")
      .def(py::init<const py::object&>(), py::arg("capsule"))
      .def_property_readonly("address", &Imported::address)
      .def_property_readonly("read_only", &Imported::read_only)
      .def_property_readonly(
          "place", [](const Imported& t) { return py::make_tuple(t.tensor().device.type, t.tensor().device.number); })
      .def_property_readonly("dtype",
                             [](const Imported& t) {
                               const dlpack::DataType& d = t.tensor().dtype;
                               return py::make_tuple(d.code, d.bits, d.lanes);
                             })
      .def_property_readonly(
          "shape",
          [](const Imported& t) {
            const dlpack::Tensor& tensor = t.tensor();
            return py::tuple(py::cast(std::vector<int64_t>(tensor.shape, tensor.shape + tensor.rank)));
          })
      .def_property_readonly(
          "strides",
          [](const Imported& t) -> py::object {
            const dlpack::Tensor& tensor = t.tensor();
            if (tensor.strides == nullptr) return py::none();
            return py::tuple(py::cast(std::vector<int64_t>(tensor.strides, tensor.strides + tensor.rank)));
          },
          "In elements; None: no gaps.");
  m.def("to_dlpack", &to_dlpack, py::arg("owner"), py::arg("address"), py::arg("shape"), py::arg("strides"),
        py::arg("dtype"), py::arg("device"), py::arg("read_only"), py::arg("copied"), py::arg("versioned"),
        "A capsule over an array that `owner` keeps alive. Strides are in elements, and dtype is (code, bits).");
}

}  // namespace

void bind_cuda_arrays(py::module_& m) {
  py::module_::import("gradring._core");  // says which exception in Python an Error becomes
  py::class_<DeviceBlock, std::shared_ptr<DeviceBlock>>(m, "DeviceBlock", "Memory of a device's pool.")
      .def(py::init<int, size_t, uintptr_t, py::object>(), py::arg("device"), py::arg("bytes"), py::arg("stream"),
           py::arg("keep") = py::none())
      .def_property_readonly("device", &DeviceBlock::device)
      .def_property_readonly("nbytes", &DeviceBlock::bytes)
      .def_property_readonly("address", &DeviceBlock::address)
      .def("record_stream", &DeviceBlock::record_stream, py::arg("stream"), py::arg("keep") = py::none(),
           "Say that work on this stream uses it, too. `keep` keeps the stream alive.")
      .def("share", &DeviceBlock::share, "Say that work on any streams may use it, too.");
  py::class_<Recorded>(m, "Recorded", "A graph of what a function queues on a stream, which captures while it runs.")
      .def(py::init<int, uintptr_t, const py::function&, int>(), py::arg("device"), py::arg("stream"), py::arg("queue"),
           py::arg("mode") = 1, "`mode`: 0 global, 1 local to the thread, 2 relaxed, as in CUDA.")
      .def("launch", &Recorded::launch, py::arg("stream"));
  py::class_<Mark>(m, "Mark", "Marks the end of what a stream has to do now.")
      .def(py::init<int, uintptr_t>(), py::arg("device"), py::arg("stream"))
      .def_property_readonly("is_done", &Mark::is_done);
  py::class_<OwnStream>(m, "Stream", "A stream of its own.")
      .def(py::init<int, bool>(), py::arg("device"), py::arg("high"))
      .def_property_readonly("device", &OwnStream::device)
      .def_property_readonly("handle", &OwnStream::handle)
      .def_static("lasts", &OwnStream::lasts, py::arg("handle"), "Whether a handle is valid until the process ends.");
  m.def("locate", &locate, py::arg("address"), py::arg("bytes"),
        "Where memory lies: ('device', number), ('pinned', -1), or ('none', -1) if no device has it.");
  m.def(
      "order",
      [](int device, uintptr_t before, uintptr_t after) {
        const cuda::OnDevice on("stream", device);
        cuda::order("stream", stream_of(before), stream_of(after));
      },
      py::arg("device"), py::arg("before"), py::arg("after"),
      "Make a stream wait for all work that another stream has now, before it begins new work. The host does not "
      "wait.");
  m.def(
      "require_no_capture",
      [](const std::string& who, uintptr_t stream, const char* why) {
        cuda::require_no_capture(who, stream_of(stream), why != nullptr ? why : cuda::kNotInGraphs);
      },
      py::arg("who"), py::arg("stream"), py::arg("why") = py::none(),
      "Raise GradringError, which names `who`, if the stream is capturing a graph. The capture goes on.");
  m.def(
      "synchronize",
      [](int device, uintptr_t stream) {
        const GilRelease release;
        const cuda::OnDevice on("stream", device);
        cuda::require_no_capture("stream", stream_of(stream));
        check(cuda::synchronize(stream_of(stream)));
      },
      py::arg("device"), py::arg("stream"), "Wait until a stream has done all it has to do.");
  m.def(
      "read",
      [](int device, uintptr_t stream, uintptr_t address, const py::buffer& to) {
        const py::buffer_info info = to.request(true);
        transfer(cuda::Way::kToHost, device, stream, address, info.ptr, static_cast<size_t>(info.size * info.itemsize));
      },
      py::arg("device"), py::arg("stream"), py::arg("address"), py::arg("to"),
      "Copy from the device into an array without gaps, and wait for the copy.");
  m.def(
      "write",
      [](int device, uintptr_t stream, uintptr_t address, const py::buffer& from) {
        const py::buffer_info info = from.request();
        transfer(cuda::Way::kToDevice, device, stream, address, info.ptr,
                 static_cast<size_t>(info.size * info.itemsize));
      },
      py::arg("device"), py::arg("stream"), py::arg("address"), py::arg("from_"),
      "Copy an array without gaps to the device, and wait for the copy.");
  m.def("copy", &copy, py::arg("device"), py::arg("stream"), py::arg("to"), py::arg("to_strides"), py::arg("from_"),
        py::arg("from_strides"), py::arg("shape"), py::arg("item"),
        "Queue a copy between two arrays of this shape on one device. Strides are in bytes.");
  m.def("trim_pools", [] { (void)cuda::MemoryPool::trim_all(); }, "Free the free blocks of all pools.");
  py::module_::import("atexit").attr("register")(py::cpp_function([] {
    cuda::MemoryPool::close_all();
    OwnStream::close();
  }));
  bind_tensor(m);
}

}  // namespace gradring
