// The engine of a CUDA device in Python, with the names of _core.Engine. The types of feeds and of programs are those of _core.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/cuda_bindings.h"
#include "bindings/engine_counts.h"
#include "bindings/engine_data.h"
#include "bindings/feed.h"
#include "bindings/gil.h"
#include "cuda/arena.h"
#include "cuda/stream.h"
#include "program/cuda/engine.h"
#include "program/cuda/library.h"

namespace gradring {

namespace {

using cuda::DeviceArena;
using DeviceArenas = std::vector<std::tuple<std::string, std::string, std::shared_ptr<DeviceArena>>>;

Arenas device_arenas(const DeviceArenas& given) {
  Arenas arenas;
  for (const auto& [name, kind, memory] : given) {
    const auto* const known =
        std::find(std::begin(kBufferKindNames), std::end(kBufferKindNames), std::string_view(kind));
    const auto found = static_cast<BufferKind>(known - std::begin(kBufferKindNames));
    if (known == std::end(kBufferKindNames) || !has_arena(found) || found == BufferKind::kTemp || memory == nullptr) {
      throw Error(Code::kInvalidArgument,
                  "[Engine] arena " + name + " is of kind " + kind + ": must be param, grad or state, with memory");
    }
    arenas.set(name, found, memory->data(), static_cast<int64_t>(memory->size()), memory);
  }
  return arenas;
}

// A device's engine, and the library of products that its programs call.
class PyDeviceEngine {
 public:
  PyDeviceEngine(int device, uintptr_t library, const DeviceArenas& arenas, const EngineOptions& options, bool tune,
                 bool tf32, cuda::Lender lender)
      : device_(device), products_(cuda::make_products(device, reinterpret_cast<void*>(library), tune, tf32)) {
    DeviceOptions on;
    on.device = device, on.products = products_.get(), on.processors = cuda::processors_of(device);
    on.lender = std::move(lender);
    engine_ = std::make_unique<DeviceEngine>(device_arenas(arenas), options, on);
  }

  // What bind_counts asks for. Counts are those of the last whole step, so steps that are queued come first.
  Team& team() { return engine_->team(); }
  const EngineOptions& options() const { return engine_->options(); }
  void set_seed(uint64_t seed) { engine_->set_seed(seed); }
  TrainState& state() {
    settle();
    return engine_->state();
  }
  Totals& totals() {
    settle();
    return engine_->totals();
  }

  // Waits for the steps that are queued, unless another thread uses the engine now, or this is a forked child. Needs the GIL.
  void settle() {
    if (engine_->enter(false) != Engine::Entry::kEntered) return;
    struct Leave {
      DeviceEngine& engine;
      ~Leave() { engine.leave(); }
    } const leave{*engine_};
    if (engine_->is_settled()) return;
    const GilRelease release;
    engine_->settle();
  }

  DeviceEngine& engine() { return *engine_; }
  const cuda::Products& products() const { return *products_; }

  // Returns None if the algorithms were recorded on another device or with another library; else whether they are used from
  // now on.
  py::object restore_algorithms(const std::string& text) {
    cuda::ProductsOrigin origin;
    std::vector<cuda::RecordedAlgorithm> choices;
    if (!cuda::read_choices(text, &origin, &choices)) {
      throw Error(Code::kInvalidArgument, "[Engine] the text is no record of algorithms");
    }
    if (!(origin == products_->origin())) return py::none();
    const cuda::OnDevice on("Engine", device_);
    const bool taken = products_->restore(origin, choices);
    if (taken) engine_->forget_rehearsals();
    return py::bool_(taken);
  }
  void forget_algorithms() {
    const cuda::OnDevice on("Engine", device_);
    products_->forget();
    engine_->forget_rehearsals();
  }

 private:
  int device_;
  std::unique_ptr<cuda::Products> products_;
  std::unique_ptr<DeviceEngine> engine_;
};

class Guard {
 public:
  Guard(PyDeviceEngine& engine, bool writes) : engine_(engine.engine()) {
    switch (engine_.enter(writes)) {
      case Engine::Entry::kEntered: return;
      case Engine::Entry::kBusy:
        throw Error(Code::kUnavailable,
                    "[engine] it is running already, in another thread or further up this one's stack: use one engine "
                    "per thread, or a lock around it");
      case Engine::Entry::kForked:
        throw Error(Code::kUnavailable,
                    "[engine] it was made before this process was forked, and no forked process can use its parent's "
                    "CUDA device: start a new process");
    }
  }
  ~Guard() { engine_.leave(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  DeviceEngine& engine_;
};

// The stream that a caller gave, or the one on which its thread works. Needs the GIL.
void* caller_of(const std::optional<uintptr_t>& stream) {
  if (stream) return reinterpret_cast<void*>(*stream);
  const py::object current = py::module_::import("gradring.cuda.streams").attr("current_stream")();
  return reinterpret_cast<void*>(current.cast<uintptr_t>());
}

}  // namespace

void bind_cuda_engine(py::module_& m) {
  py::class_<PyDeviceEngine> engine(m, "Engine", "Programs, arenas and counts of one model on a CUDA device.");
  engine
      .def(py::init([](int device, uintptr_t library, const DeviceArenas& arenas, int lanes, int64_t accumulate,
                       uint64_t seed, bool check_finite, bool tune, bool tf32, py::object lend) {
             return std::make_unique<PyDeviceEngine>(device, library, arenas,
                                                     EngineOptions{lanes, accumulate, seed, check_finite}, tune, tf32,
                                                     lender_of(std::move(lend)));
           }),
           py::arg("device"), py::arg("library"), py::arg("arenas"), py::arg("lanes"), py::arg("accumulate"),
           py::arg("seed"), py::arg("check_finite"), py::arg("tune") = false, py::arg("tf32") = false,
           py::arg("lend") = py::none(),
           "Make an engine. `library` is what dlopen returned for cuBLASLt. Each arena is (name, kind, DeviceArena), "
           "and its kind is param, grad or state. With `tune`, timing chooses the algorithm of each matrix product. "
           "With "
           "`tf32`, products of float32 read tf32. `lend` is as for DeviceArena.")
      .def(
          "algorithms",
          [](const PyDeviceEngine& e) { return cuda::choices_text(e.products().origin(), e.products().record()); },
          "The algorithm of each product so far, with the device and the version of the library, as lines of text.")
      .def_static(
          "reads_algorithms",
          [](const std::string& text) {
            cuda::ProductsOrigin origin;
            std::vector<cuda::RecordedAlgorithm> choices;
            return cuda::read_choices(text, &origin, &choices);
          },
          py::arg("text"), "Whether a text is what `algorithms` returned, of any device.")
      .def(
          "restore_algorithms",
          [](PyDeviceEngine& e, const std::string& text) {
            const Guard guard(e, false);
            return e.restore_algorithms(text);
          },
          py::arg("text"),
          "Use the algorithms that another engine's `algorithms` returned. None if they belong to another device or "
          "version of the library, and False if the library refuses them: nothing has changed then.")
      .def(
          "forget_algorithms",
          [](PyDeviceEngine& e) {
            const Guard guard(e, false);
            e.forget_algorithms();
          },
          "Choose the algorithms of all products anew.")
      .def(
          "set_arenas",
          [](PyDeviceEngine& e, const DeviceArenas& given) {
            const Guard guard(e, false);
            e.engine().set_arenas(device_arenas(given));
          },
          py::arg("arenas"), "Use other arenas, given as to the constructor; forgets all programs.")
      .def(
          "clear",
          [](PyDeviceEngine& e) {
            const Guard guard(e, false);
            e.engine().clear();
          },
          "Forget all programs.")
      .def(
          "trace",
          [](PyDeviceEngine& e, bool on) {
            const Guard guard(e, false);
            const GilRelease release;
            e.engine().trace(on);
          },
          py::arg("on"), "Set whether later steps are in the trace, with the device's times of each instruction.")
      .def(
          "add",
          [](PyDeviceEngine& e, const std::string& mode, int64_t rows, const py::kwargs& native) {
            const Guard guard(e, false);
            const py::object made = py::module_::import("gradring._core").attr("Program")(**native);
            const auto& program = made.cast<const Program&>();
            return std::vector<bool>(e.engine().add(mode_from_name(mode), rows, program).size(), false);
          },
          py::arg("mode"), py::arg("rows"),
          "Add a program; returns for each instruction that no barrier comes before it: a stream keeps them in order.")
      .def(
          "program_lanes",
          [](PyDeviceEngine& e, const std::string& mode, int64_t rows) {
            return e.engine().find(mode_from_name(mode), rows) == nullptr ? 0 : 1;
          },
          py::arg("mode"), py::arg("rows"))
      .def(
          "chunk",
          [](PyDeviceEngine& e, bool train, PyFeed& feed, const RateArray& rates, int64_t most_steps, double seconds,
             bool weighted, double loss_sum, double loss_weight, const std::optional<uintptr_t>& stream) {
            void* const caller = caller_of(stream);
            const Guard guard(e, train);
            ChunkOptions options = options_for(e.engine().chunk_options(), train, rates, most_steps, seconds);
            options.weighted = weighted;
            Totals totals;
            if (!train) totals.loss_sum = loss_sum, totals.loss_weight = loss_weight;
            ChunkResult result;
            {
              const GilRelease release;
              result = e.engine().chunk(train, feed.feed(), options, &totals, caller);
            }
            if (train) e.engine().totals().add(totals);
            return py::make_tuple(result_of(result, feed), totals_of(totals));
          },
          py::arg("train"), py::arg("feed"), py::arg("rates"), py::arg("most_steps"), py::arg("seconds"),
          py::arg("weighted") = false, py::arg("loss_sum") = 0.0, py::arg("loss_weight") = 0.0,
          py::arg("stream") = py::none(),
          "Run steps until the time is up, a limit is reached or the epoch ends, as _core.Engine.chunk does. `stream` "
          "is the caller's current stream, which gradring.cuda.current_stream gives by default.")
      .def(
          "step",
          [](PyDeviceEngine& e, PyFeed& feed, const RateArray& rates, bool weighted,
             const std::optional<uintptr_t>& stream) {
            void* const caller = caller_of(stream);
            const Guard guard(e, true);
            ChunkOptions options = options_for(e.engine().chunk_options(), true, rates, 1, 0);
            options.weighted = weighted;
            ChunkResult result;
            {
              const GilRelease release;
              result = e.engine().step(feed.feed(), options, caller);
            }
            if (result.fault != Fault::kNone) return py::object(py::none());
            if (result.end != ChunkEnd::kSteps) return py::object(result_of(result, feed));
            return py::object(py::int_(e.engine().queued() - 1));
          },
          py::arg("feed"), py::arg("rates"), py::arg("weighted") = false, py::arg("stream") = py::none(),
          "Queue one training step on the feed's next batch, and return its number before the device is done. None if "
          "an "
          "earlier step has failed: then nothing is queued. A dict, as `chunk` returns it, if there is no batch, or no "
          "program for it.")
      .def(
          "losses",
          [](PyDeviceEngine& e, int64_t since, int64_t last) {
            const Guard guard(e, true);
            {
              const GilRelease release;
              e.engine().await(last);
            }
            const std::vector<double>& losses = e.engine().losses(since);
            return py::make_tuple(e.engine().first_loss(), losses);
          },
          py::arg("since"), py::arg("last") = -1,
          "Wait until step `last` is done, and drop the losses before step `since`. Returns the number of the first "
          "step "
          "whose loss is left, and the losses from it on of all steps that are known to be done.")
      .def(
          "failure",
          [](PyDeviceEngine& e) -> py::object {
            const Guard guard(e, false);
            const std::optional<FailedStep>& failed = e.engine().failure();
            if (!failed) return py::none();
            return py::make_tuple(failed->number, result_of(failed->result));
          },
          "The number and the result of the step that has failed; None if there is none.")
      .def(
          "forget_failure",
          [](PyDeviceEngine& e) {
            const Guard guard(e, false);
            e.engine().forget_failure();
          },
          "Let steps run after a failure. It also drops all losses.")
      .def(
          "settle",
          [](PyDeviceEngine& e) {
            const Guard guard(e, true);
            const GilRelease release;
            e.engine().settle();
          },
          "Wait until all steps are done.")
      .def(
          "order_behind_steps",
          [](PyDeviceEngine& e, const std::optional<uintptr_t>& stream) {
            void* const caller = caller_of(stream);
            const Guard guard(e, false);
            e.engine().order_behind_steps(caller);
          },
          py::arg("stream") = py::none(),
          "Make the stream wait for the steps that are queued; the host waits for none.")
      .def_property_readonly(
          "queued_updates", [](PyDeviceEngine& e) { return e.engine().queued_updates(); },
          "How many updates there are when all queued steps are done.")
      .def(
          "flush",
          [](PyDeviceEngine& e, int64_t rows, const RateArray& rates, bool weighted,
             const std::optional<uintptr_t>& stream) {
            void* const caller = caller_of(stream);
            const Guard guard(e, true);
            const ChunkOptions options = options_for(e.engine().chunk_options(), true, rates, -1, 0);
            ChunkResult result;
            {
              const GilRelease release;
              result = e.engine().flush(weighted, rows, options, caller);
            }
            return result_of(result);
          },
          py::arg("rows"), py::arg("rates"), py::arg("weighted") = false, py::arg("stream") = py::none(),
          "Apply the gradients of an incomplete group of accumulated batches.")
      .def(
          "predict",
          [](PyDeviceEngine& e, PyFeed& feed, py::array out, int64_t row_bytes,
             const std::optional<uintptr_t>& stream) {
            void* const caller = caller_of(stream);
            const Guard guard(e, false);
            auto* memory = static_cast<std::byte*>(out.mutable_data());
            ChunkResult result;
            {
              const GilRelease release;
              result = e.engine().predict(feed.feed(), memory, row_bytes, caller);
            }
            return result_of(result, feed);
          },
          py::arg("feed"), py::arg("out"), py::arg("row_bytes"), py::arg("stream") = py::none());
  bind_counts(engine);
}

}  // namespace gradring
