// The loader: pipelines, iterators over their batches, and the work of a worker process.
#include <poll.h>
#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/batch_iterator.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/held_error.h"
#include "bindings/loader_feed.h"
#include "bindings/loader_pipeline.h"
#include "loader/pipeline.h"
#include "loader/worker.h"
#include "runtime/cgroup.h"
#include "runtime/clock.h"
#include "runtime/pinning.h"

namespace gradring {

namespace {

Deadline deadline_after(double seconds) {
  if (!(seconds < 1e9)) return kNoDeadline;
  return deadline_in(std::chrono::nanoseconds(static_cast<int64_t>(std::max(seconds, 0.0) * 1e9)));
}

py::dict stats_of(LoaderPipeline& held) {
  Pipeline& pipeline = held.native();
  const ConsumerCounters& c = pipeline.counters();
  const auto count = [](const auto& n) -> uint64_t { return n.load(std::memory_order_relaxed); };
  const auto seconds = [&](const auto& n) { return static_cast<double>(count(n)) * 1e-9; };
  py::dict out;
  out["batches"] = count(c.batches);
  out["rows"] = count(c.rows);
  out["bytes"] = count(c.bytes);
  out["skipped"] = count(c.skipped);
  out["ready"] = count(c.ready);
  out["consumer_wait_seconds"] = seconds(c.wait_ns);
  out["consumer_fill_seconds"] = seconds(c.fill_ns);
  out["consumer_own_seconds"] = seconds(c.own_ns);
  double busy = 0, wait = 0, timed = 0;
  std::vector<double> parts(PartTimes::kMost);
  py::list workers;
  for (uint32_t w = 0; w < pipeline.options().workers; ++w) {
    WorkerBlock& block = pipeline.control().worker(w);
    py::dict worker;
    worker["busy_seconds"] = seconds(block.busy_ns);
    worker["wait_seconds"] = seconds(block.wait_ns);
    worker["rows"] = count(block.rows);
    worker["resident_bytes"] = count(block.resident);
    workers.append(worker);
    busy += seconds(block.busy_ns);
    wait += seconds(block.wait_ns);
  }
  for (uint32_t w = 0; w < std::max(pipeline.options().workers, 1u); ++w) {
    const WorkerBlock& block = pipeline.control().worker(w);
    timed += seconds(block.timed_ns);
    for (size_t i = 0; i < parts.size(); ++i) parts[i] += seconds(block.part_ns[i]);
  }
  out["timed_seconds"] = timed;
  out["part_seconds"] = parts;
  out["worker_busy_seconds"] = busy;
  out["worker_wait_seconds"] = wait;
  out["workers"] = workers;
  py::list occupancy;
  for (uint32_t i = 0; i < std::min<uint32_t>(pipeline.options().cells, ConsumerCounters::kOccupancies); ++i) {
    occupancy.append(count(c.occupancy[i]));
  }
  out["occupancy"] = occupancy;
  out["hand_off_p50_seconds"] = held.hand_off().quantile(0.5) * 1e-9;
  out["hand_off_p99_seconds"] = held.hand_off().quantile(0.99) * 1e-9;
  out["active_workers"] = pipeline.active();
  out["tuner_changes"] = pipeline.tuner().changes();
  out["prefetch"] = pipeline.ahead();
  out["held"] = pipeline.held();
  out["slots"] = pipeline.slots()->slots();
  out["slot_bytes"] = pipeline.slots()->stride();
  return out;
}

// The work of a worker process; see python/gradring/loader/worker.py.
class StripeWorker {
 public:
  StripeWorker(std::shared_ptr<Source> source, int control_fd, int slots_fd, size_t stride, uint32_t first_slots,
               uint32_t most_slots, int64_t batch_size, uint32_t cells, uint32_t workers, uint32_t index)
      : filler_(std::move(source), batch_size),
        arena_(SharedArena::attach(control_fd)),
        control_(arena_.data(), {cells, workers, workers}, Scope::kProcesses),
        slots_(stride, first_slots, most_slots, slots_fd),
        worker_(control_, filler_, slots_, index),
        index_(index) {
    if (arena_.size() < Control::bytes(control_.shape())) {
      throw Error(Code::kInternal, "[loader] the control block is smaller than the loader says");
    }
  }

  // pickle(exception or None, message) returns bytes for the loader's process. go_on() says whether to go on waiting.
  void serve(const py::function& pickle, const py::function& go_on) {
    worker_.watch_memory();
    control_.worker(index_).thread.store(static_cast<uint64_t>(getpid()), std::memory_order_relaxed);
    worker_.on_failure([&](uint64_t, const PartBlock& part) {
      const py::gil_scoped_acquire hold;
      NoteBlock& note = control_.note(index_);
      note.size = 0;
      try {
        py::object error = is_python(part.status.code()) ? take_held_error() : py::none();
        if (!error) error = py::none();
        const std::string text = py::bytes(pickle(error, part.status.message()));
        if (text.size() > NoteBlock::kBytes) return;
        std::memcpy(note.bytes, text.data(), text.size());
        note.size = text.size();
      } catch (py::error_already_set&) {
        // The exception cannot be pickled: the consumer gets only the message in the part.
      }
    });
    const GilRelease release;
    worker_.serve([&] {
      const py::gil_scoped_acquire hold;
      try {
        return py::cast<bool>(go_on());
      } catch (py::error_already_set&) {
        return false;
      }
    });
  }

 private:
  Filler filler_;
  SharedArena arena_;
  Control control_;
  SlotMap slots_;
  Worker worker_;
  uint32_t index_;
};

}  // namespace

void bind_loader(py::module_& m) {
  m.attr("spare_slots") = kSpareSlots;
  m.def("memory_left", [] { return memory_left(); }, "Return how many bytes of memory this process may still use.");

  m.def(
      "batches_in_epoch",
      [](int64_t samples, int64_t batch_size, int64_t rank, int64_t world_size, bool drop_last, bool pad, bool blocks) {
        OrderOptions order;
        order.samples = samples;
        order.batch_size = batch_size;
        order.rank = rank;
        order.world_size = world_size;
        order.drop_last = drop_last;
        order.pad = pad;
        order.blocks = blocks;
        throw_if(Order::check(order));
        return Order(order).batches();
      },
      py::arg("samples"), py::arg("batch_size"), py::arg("rank"), py::arg("world_size"), py::arg("drop_last"),
      py::arg("pad"), py::arg("blocks") = false, "Return the number of batches that this rank gets in an epoch.");

  m.def(
      "exit_with",
      [](int fd) {
        std::thread([fd] {
          pollfd descriptor{fd, 0, 0};  // poll always reports POLLHUP
          while (poll(&descriptor, 1, -1) < 1) {
          }
          _exit(1);
        }).detach();
      },
      py::arg("fd"), "Start a thread that ends this process at once when the other end of the pipe is closed.");

  m.def(
      "die_with_parent",
      [](pid_t parent) {
        // If the parent has died already, the kernel sends no signal.
        return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
      },
      py::arg("parent"),
      "Ask the system to kill this process when the parent's thread that started it ends. Return False if the parent "
      "is dead already.");

  py::class_<LoaderPipeline, std::shared_ptr<LoaderPipeline>>(
      m, "LoaderPipeline", "The workers, slots and ring that fill a loader's batches ahead: see gradring.loader.")
      .def(py::init([](std::shared_ptr<Source> source, int kind, const py::list& looks, int64_t batch_size,
                       uint32_t cells, uint32_t ahead, uint32_t workers, uint32_t active, bool processes, bool tune,
                       bool split, bool help, size_t memory_budget, bool pinned) {
             PipelineOptions options;
             options.batch_size = batch_size;
             options.cells = cells;
             options.ahead = ahead;
             options.workers = workers;
             options.active = active;
             options.processes = processes;
             options.tune = tune;
             options.parts = split ? 0 : 1;
             options.help = help;
             options.memory_budget = memory_budget;
             options.pinner = pinned ? pinner() : nullptr;
             const std::vector<FieldSpec> fields = source->fields();
             BatchForm form(static_cast<BatchForm::Kind>(kind), fields, looks);
             // Worker processes open their own sources, so the pipeline needs none.
             if (processes) source = nullptr;
             auto pipeline = std::make_unique<Pipeline>(std::move(source), fields, options);
             return LoaderPipeline::make(std::move(pipeline), std::move(form));
           }),
           py::arg("source"), py::arg("kind"), py::arg("looks"), py::arg("batch_size"), py::arg("cells"),
           py::arg("ahead"), py::arg("workers"), py::arg("active"), py::arg("processes"), py::arg("tune"),
           py::arg("split"), py::arg("help"), py::arg("memory_budget"), py::arg("pinned") = false)
      .def(
          "start",
          [](LoaderPipeline& self, int64_t samples, int64_t batch_size, uint64_t seed, uint64_t epoch, int64_t rank,
             int64_t world_size, int64_t start, bool shuffle, bool drop_last, bool pad, bool skip, double seconds,
             bool blocks) {
            OrderOptions order;
            order.samples = samples;
            order.batch_size = batch_size;
            order.seed = seed;
            order.epoch = epoch;
            order.rank = rank;
            order.world_size = world_size;
            order.start = start;
            order.shuffle = shuffle;
            order.drop_last = drop_last;
            order.pad = pad;
            order.blocks = blocks;
            self.forget_errors();
            const GilRelease release;
            const std::lock_guard<Reader> lock(self.reader());
            self.native().start(order, skip, deadline_after(seconds));
          },
          py::arg("samples"), py::arg("batch_size"), py::arg("seed"), py::arg("epoch"), py::arg("rank"),
          py::arg("world_size"), py::arg("start"), py::arg("shuffle"), py::arg("drop_last"), py::arg("pad"),
          py::arg("skip"), py::arg("seconds"), py::arg("blocks") = false)
      .def(
          "iterate",
          [](std::shared_ptr<LoaderPipeline> pipeline, py::object reading) {
            return py::reinterpret_steal<py::object>(new_batch_iterator(std::move(pipeline), std::move(reading)));
          },
          py::arg("reading"))
      .def_property_readonly(
          "pin_refusal",
          [](LoaderPipeline& self) -> py::object {
            const Status& refusal = self.native().slots()->pin_refusal();
            return refusal.ok() ? py::object(py::none()) : py::str(refusal.message());
          },
          "Why a device has refused to pin the slots, or None.")
      .def("close", [](LoaderPipeline& self) { self.native().close(); })
      .def("join", &LoaderPipeline::join, py::arg("seconds"), py::arg("signals"),
           "End the worker threads for good. Return False if one of them was still at work after that many seconds.")
      .def_property_readonly("ended", [](LoaderPipeline& self) { return self.native().ended(); })
      .def_property_readonly("closed", [](LoaderPipeline& self) { return self.native().closed(); })
      .def_property_readonly("forked", [](LoaderPipeline& self) { return self.native().forked(); })
      .def_property_readonly(
          "position", [](LoaderPipeline& self) { return self.native().order().start_after(self.native().delivered()); })
      .def("take_error", &LoaderPipeline::take_error, py::arg("batch"))
      .def("stats", &stats_of)
      .def("set_process",
           [](LoaderPipeline& self, uint32_t stripe, int pidfd) { self.native().set_process(stripe, pidfd); })
      .def("dead_stripe", [](LoaderPipeline& self) { return self.native().dead_stripe(); })
      .def("recover_stripe",
           [](LoaderPipeline& self, uint32_t stripe, bool restart) { self.native().recover_stripe(stripe, restart); })
      .def("waited_stripe", [](LoaderPipeline& self) { return self.native().waited_stripe(); })
      .def(
          "quit", [](LoaderPipeline& self) { self.native().control().run().turn.publish(RunBlock::kQuit); },
          "Tell the worker processes to end.")
      .def(
          "worker_at",
          [](LoaderPipeline& self, uint32_t worker) {
            const WorkerBlock& block = self.native().control().worker(worker);
            const int64_t age = monotonic_ns() - block.since_ns.load(std::memory_order_relaxed);
            return py::make_tuple(block.ticket.load(std::memory_order_relaxed), static_cast<double>(age) * 1e-9,
                                  block.resident.load(std::memory_order_relaxed),
                                  block.thread.load(std::memory_order_relaxed));
          },
          "Return (batch that the worker fills or -1, seconds since it began, resident bytes, thread ident or pid).")
      .def("note",
           [](LoaderPipeline& self, uint32_t stripe) {
             const NoteBlock& note = self.native().control().note(stripe);
             return py::bytes(note.bytes, std::min<size_t>(note.size, NoteBlock::kBytes));
           })
      .def_property_readonly("control_fd", [](LoaderPipeline& self) { return self.native().control_fd(); })
      .def_property_readonly("slots_fd", [](LoaderPipeline& self) { return self.native().slots()->fd(); })
      .def_property_readonly("first_slots", [](LoaderPipeline& self) { return self.native().slots()->map().first(); })
      .def_property_readonly("most_slots", [](LoaderPipeline& self) { return self.native().slots()->map().most(); })
      .def_property_readonly("stride", [](LoaderPipeline& self) { return self.native().slots()->stride(); });

  m.def(
      "loaders_left", [] { return !LoaderPipeline::sweep(); },
      "Return whether worker threads of loaders that no longer exist are still at work.");

  py::class_<LoaderFeed, PyFeed>(m, "LoaderFeed", "One pass over a loader's pipeline, which an engine reads.")
      .def(py::init<std::shared_ptr<LoaderPipeline>, py::object>(), py::arg("pipeline"), py::arg("reading"));

  py::class_<StripeWorker>(m, "StripeWorker", "The native half of one worker process, which fills one stripe.")
      .def(py::init<std::shared_ptr<Source>, int, int, size_t, uint32_t, uint32_t, int64_t, uint32_t, uint32_t,
                    uint32_t>(),
           py::arg("source"), py::arg("control_fd"), py::arg("slots_fd"), py::arg("stride"), py::arg("first_slots"),
           py::arg("most_slots"), py::arg("batch_size"), py::arg("cells"), py::arg("workers"), py::arg("index"))
      .def("serve", &StripeWorker::serve, py::arg("pickle"), py::arg("go_on"));
}

}  // namespace gradring
