// Bindings of programs, of sources of batches and of the engine. The function that every step calls is in step_fast_path.cc.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/engine_counts.h"
#include "bindings/engine_data.h"
#include "bindings/feed.h"
#include "bindings/gil.h"
#include "bindings/held_error.h"
#include "bindings/program_data.h"
#include "bindings/step_fast_path.h"
#include "loader/array_source.h"
#include "program/engine.h"
#include "runtime/arena.h"

namespace gradring {

namespace {

Error no_program(const char* caller, const std::string& mode, int64_t rows) {
  return Error(Code::kInvalidArgument, "[Engine." + std::string(caller) + "] there is no program to " + mode +
                                           " with batches of " + std::to_string(rows) + " rows: add one first");
}

// The dtype of an array. NumPy makes a dtype's name in Python, which would be a tenth of what a short epoch costs.
Dtype dtype_of(const py::array& array) {
  const py::dtype dtype = array.dtype();
  const bool is_long = dtype.itemsize() > 4;
  switch (dtype.kind()) {
    case 'f':
      if (dtype.itemsize() == 4 || dtype.itemsize() == 8) return is_long ? Dtype::kFloat64 : Dtype::kFloat32;
      break;
    case 'b': return Dtype::kBool;
    case 'i':
      if (dtype.itemsize() >= 4) return is_long ? Dtype::kInt64 : Dtype::kInt32;
      break;
    default: break;
  }
  return dtype_from_name(py::str(dtype.attr("name")));
}

// An ArraySource and the arrays it reads.
class ArrayFeed final : public PyFeed {
 public:
  ArrayFeed(const std::vector<std::pair<py::array, std::string>>& arrays, int64_t batch_size, bool shuffle,
            bool drop_last, uint64_t seed, uint64_t epoch, int64_t start_batch, int64_t rank, int64_t world_size,
            bool pad, bool blocks)
      : source_(fields_of(arrays),
                order_of(arrays, batch_size, shuffle, drop_last, seed, rank, world_size, pad, blocks)) {
    for (const auto& [array, wanted] : arrays) arrays_.push_back(array);
    row_bytes_ = source_.bytes_of_rows();
    use(&source_);
    begin(epoch, start_batch);
  }

  void begin(uint64_t epoch, int64_t start_batch) {
    drop_waiting();
    source_.begin(epoch, start_batch);
  }

  ArraySource& source() { return source_; }

 private:
  static OrderOptions order_of(const std::vector<std::pair<py::array, std::string>>& arrays, int64_t batch_size,
                               bool shuffle, bool drop_last, uint64_t seed, int64_t rank, int64_t world_size, bool pad,
                               bool blocks) {
    OrderOptions order;
    order.samples = arrays.empty() ? 0 : arrays[0].first.shape(0);
    order.batch_size = batch_size;
    order.seed = seed;
    order.rank = rank;
    order.world_size = world_size;
    order.shuffle = shuffle;
    order.drop_last = drop_last;
    order.pad = pad;
    order.blocks = blocks;
    return order;
  }

  static std::vector<ArrayField> fields_of(const std::vector<std::pair<py::array, std::string>>& arrays) {
    std::vector<ArrayField> fields;
    for (const auto& [array, wanted] : arrays) {
      if (array.ndim() < 1) throw Error(Code::kInvalidArgument, "[loader] arrays must have a first dimension");
      FieldSpec spec;
      spec.dtype = dtype_of(array);
      spec.shape.assign(array.shape() + 1, array.shape() + array.ndim());
      ArrayLayout layout{
          static_cast<const std::byte*>(array.data()), {array.strides(), array.strides() + array.ndim()}, false};
      // The arrays in arrays_ keep the memory alive.
      fields.push_back({std::make_shared<MemoryColumn>(std::move(spec), array.shape(0), std::move(layout), nullptr),
                        dtype_from_name(wanted)});
    }
    return fields;
  }

  const std::vector<size_t>& bytes_of_rows() const override { return row_bytes_; }

  std::vector<py::array> arrays_;
  ArraySource source_;
  std::vector<size_t> row_bytes_;
};

// Trains on whole epochs, one after another, from number `epoch` on: one for each row of `out`. It ends early in an epoch that does
// not end as it should, or whose samples have no weight, and its row then stays as it was.
ChunkResult train_epochs(Engine& engine, ArrayFeed& feed, const ChunkOptions& options, uint64_t epoch, int64_t count,
                         double* out) {
  ChunkResult result;
  result.end = ChunkEnd::kEpoch;
  for (int64_t i = 0; i < count; ++i) {
    const Clock::time_point start = Clock::now();
    feed.begin(epoch + static_cast<uint64_t>(i), 0);
    engine.state().sums = engine.state().before_group = {};
    Totals totals;
    result = engine.chunk(true, feed.feed(), options, &totals);
    engine.totals().add(totals);
    if (result.end != ChunkEnd::kEpoch || totals.loss_weight == 0) break;
    const double row[] = {totals.loss_sum,
                          totals.loss_weight,
                          static_cast<double>(totals.correct),
                          static_cast<double>(totals.samples),
                          std::chrono::duration<double>(Clock::now() - start).count(),
                          static_cast<double>(totals.steps)};
    std::copy(std::begin(row), std::end(row), out + i * static_cast<int64_t>(std::size(row)));
  }
  return result;
}

// Whether one batch is all that the feed has, and its program takes less time than handing the GIL to another thread and back.
bool worth_keeping_gil(const Engine& engine, PyFeed& feed) {
  auto* arrays = dynamic_cast<ArrayFeed*>(&feed);
  if (arrays == nullptr || arrays->source().order().batches() != 1) return false;
  const Executor* executor = engine.programs(Mode::kPredict).find(arrays->source().order().rows(0));
  return executor != nullptr && executor->keeps_gil();
}

}  // namespace

void bind_program(py::module_& m) {
  bind_program_data(m);

  py::class_<PyFeed>(m, "Feed", "One epoch of batches, which an engine reads.")
      .def(
          "next_rows", [](PyFeed& f) { return f.peek().rows; },
          "Return the number of rows of the next batch, or 0 at the end.")
      .def("read", &PyFeed::read, py::arg("out"),
           "Copy the fields of the next batch, which stays the next one, to C-contiguous arrays of their size.");

  py::class_<ArrayFeed, PyFeed>(m, "ArrayFeed", "One epoch of batches from arrays in memory.")
      .def("begin", &ArrayFeed::begin, py::arg("epoch"), py::arg("start_batch"),
           "Begin another epoch at this batch, on the same arrays in the same kind of order.")
      .def(py::init<const std::vector<std::pair<py::array, std::string>>&, int64_t, bool, bool, uint64_t, uint64_t,
                    int64_t, int64_t, int64_t, bool, bool>(),
           py::arg("arrays"), py::arg("batch_size"), py::arg("shuffle") = false, py::arg("drop_last") = false,
           py::arg("seed") = 0, py::arg("epoch") = 0, py::arg("start_batch") = 0, py::arg("rank") = 0,
           py::arg("world_size") = 1, py::arg("pad") = false, py::arg("blocks") = false)
      .def_property_readonly("batches", [](ArrayFeed& f) { return f.source().order().batches(); });

  py::class_<Permutation>(m, "Permutation", "A keyed bijection on range(n).")
      .def(py::init<uint64_t, uint64_t, uint64_t>(), py::arg("n"), py::arg("seed"), py::arg("epoch"))
      .def("__call__",
           [](const Permutation& p, uint64_t position) {
             if (position >= p.size()) {
               throw py::index_error("[Permutation] position is " + std::to_string(position) + ": must be below " +
                                     std::to_string(p.size()));
             }
             return p(position);
           })
      .def(
          "range",
          [](const Permutation& p, uint64_t first, int64_t count) {
            if (count < 0 || first > p.size() || static_cast<uint64_t>(count) > p.size() - first) {
              throw py::index_error("[Permutation] range(" + std::to_string(first) + ", " + std::to_string(count) +
                                    ") must lie within " + std::to_string(p.size()) + " positions");
            }
            py::array_t<int64_t> out(count);
            p.fill(first, count, out.mutable_data());
            return out;
          },
          py::arg("first"), py::arg("count"));

  py::class_<Engine> engine(m, "Engine", "Programs, arenas and a team of threads for one model.");
  engine
      .def(py::init([](const ArenaList& given, int lanes, int64_t accumulate, uint64_t seed, bool check_finite) {
             const EngineOptions options{lanes, accumulate, seed, check_finite};
             return std::make_unique<Engine>(arenas_from(given), options);
           }),
           py::arg("arenas"), py::arg("lanes"), py::arg("accumulate"), py::arg("seed"), py::arg("check_finite"),
           "Make an engine. Each arena is (name, kind, memory), and its kind is param, grad or state.")
      .def(
          "set_arenas",
          [](Engine& e, const ArenaList& given) {
            const EngineGuard guard(e, false);
            e.set_arenas(arenas_from(given));
          },
          py::arg("arenas"),
          "Replace the arenas, which are given as in the constructor. The engine forgets all programs.")
      .def(
          "clear",
          [](Engine& e) {
            const EngineGuard guard(e, false);
            e.clear();
          },
          "Forget all programs.")
      .def(
          "trace",
          [](Engine& e, bool on) {
            const EngineGuard guard(e, false);
            e.trace(on);
          },
          py::arg("on"), "Set whether later steps record their instructions and barriers in the trace.")
      .def(
          "add",
          [](Engine& e, const std::string& mode, int64_t rows, const py::list& arenas, const py::list& buffers,
             const py::list& instructions, const std::vector<std::shared_ptr<Resource>>& resources, int fields,
             int outputs, const py::bytes& constants) {
            const EngineGuard guard(e, false);
            Program program = program_from(arenas, buffers, instructions, resources, constants);
            program.fields = fields;
            program.outputs = outputs;
            const Executor& executor = e.add(mode_from_name(mode), rows, program);
            std::vector<bool> barriers;
            for (size_t i = 0; i < executor.size(); ++i) barriers.push_back(executor.barrier_before(i));
            return barriers;
          },
          py::arg("mode"), py::arg("rows"), py::arg("arenas"), py::arg("buffers"), py::arg("instructions"),
          py::arg("resources"), py::arg("fields"), py::arg("outputs"), py::arg("constants") = py::bytes(),
          "Add a program. Return, for each instruction, whether a barrier comes before it.")
      .def(
          "program_lanes",
          [](Engine& e, const std::string& mode, int64_t rows) {
            const Executor* executor = e.programs(mode_from_name(mode)).find(rows);
            return executor == nullptr ? 0 : executor->lanes();
          },
          py::arg("mode"), py::arg("rows"))
      .def(
          "set_program_lanes",
          [](Engine& e, const std::string& mode, int64_t rows, int lanes) {
            Executor* executor = e.programs(mode_from_name(mode)).find(rows);
            if (executor == nullptr) throw no_program("set_program_lanes", mode, rows);
            executor->set_lanes(lanes);
          },
          py::arg("mode"), py::arg("rows"), py::arg("lanes"))
      .def(
          "chunk",
          [](Engine& e, bool train, PyFeed& feed, const RateArray& rates, int64_t most_steps, double seconds,
             bool weighted, double loss_sum, double loss_weight) {
            const EngineGuard guard(e, train);
            ChunkOptions options = options_for(e, train, rates, most_steps, seconds);
            options.weighted = weighted;
            Totals totals;
            if (!train) totals.loss_sum = loss_sum, totals.loss_weight = loss_weight;
            ChunkResult result;
            {
              const GilRelease release;
              result = e.chunk(train, feed.feed(), options, &totals);
            }
            if (train) e.totals().add(totals);
            return py::make_tuple(result_of(result, feed), totals_of(totals));
          },
          py::arg("train"), py::arg("feed"), py::arg("rates"), py::arg("most_steps"), py::arg("seconds"),
          py::arg("weighted") = false, py::arg("loss_sum") = 0.0, py::arg("loss_weight") = 0.0,
          "Run steps for that many seconds, for most_steps steps or until the epoch ends. An evaluation begins its "
          "sums with loss_sum and loss_weight, which the chunks before it have reached.")
      .def(
          "epochs",
          [](Engine& e, ArrayFeed& feed, const RateArray& rates, uint64_t epoch, py::array_t<double> out) {
            if (out.ndim() != 2 || out.shape(1) != 6 || (out.flags() & py::array::c_style) == 0)
              throw Error(Code::kInvalidArgument, "[Engine.epochs] out must be C-contiguous, with 6 columns");
            const EngineGuard guard(e, true);
            if (e.options().accumulate != 1)
              throw Error(Code::kInvalidArgument, "[Engine.epochs] accumulate must be 1: an epoch ends with an update");
            const ChunkOptions options = options_for(e, true, rates, -1, 0);
            double* const rows = out.mutable_data();
            const int64_t count = out.shape(0);
            ChunkResult result;
            {
              const GilRelease release;
              result = train_epochs(e, feed, options, epoch, count, rows);
            }
            return result_of(result, feed);
          },
          py::arg("feed"), py::arg("rates"), py::arg("epoch"), py::arg("out"),
          "Train on whole epochs, from number `epoch` on, one for each row of `out`, which gets the sums of losses and "
          "of "
          "weights, right answers, samples, seconds and steps. `rates` are those of each epoch.")
      .def(
          "flush",
          [](Engine& e, int64_t rows, const RateArray& rates, bool weighted) {
            const EngineGuard guard(e, true);
            Executor* executor = e.programs(mode_of(true, weighted)).find(rows);
            if (executor == nullptr) throw no_program("flush", "train", rows);
            const ChunkOptions options = options_for(e, true, rates, -1, 0);
            ChunkResult result;
            {
              const GilRelease release;
              result = flush_updates(e.team(), *executor, options, &e.state(), &e.totals());
            }
            return result_of(result);
          },
          py::arg("rows"), py::arg("rates"), py::arg("weighted") = false,
          "Update the parameters with the gradients of an incomplete group of micro-batches.")
      .def(
          "predict",
          [](Engine& e, PyFeed& feed, py::array out, int64_t row_bytes) {
            const EngineGuard guard(e, false);
            auto* memory = static_cast<std::byte*>(out.mutable_data());
            ChunkResult result;
            if (worth_keeping_gil(e, feed)) {
              result = e.predict(feed.feed(), memory, row_bytes);
            } else {
              const GilRelease release;
              result = e.predict(feed.feed(), memory, row_bytes);
            }
            return result_of(result, feed);
          },
          py::arg("feed"), py::arg("out"), py::arg("row_bytes"));

  bind_counts(engine);
  py::class_<Program, std::shared_ptr<Program>>(m, "Program",
                                                "A program as native data, for the engine of a CUDA device.")
      .def(py::init([](const py::list& arenas, const py::list& buffers, const py::list& instructions,
                       const std::vector<std::shared_ptr<Resource>>& resources, int fields, int outputs,
                       const py::bytes& constants) {
             auto program =
                 std::make_shared<Program>(program_from(arenas, buffers, instructions, resources, constants));
             program->fields = fields;
             program->outputs = outputs;
             return program;
           }),
           py::arg("arenas"), py::arg("buffers"), py::arg("instructions"), py::arg("resources"), py::arg("fields"),
           py::arg("outputs"), py::arg("constants") = py::bytes());
  bind_step_fast_path(m);
  bind_replicas(m);
  bind_workers(m);
}

}  // namespace gradring
