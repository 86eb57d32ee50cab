// Bindings of data-parallel training over the ranks of a communicator.
//
// | variable      | writer | readers | order            | why                                                   |
// |---------------|--------|---------|------------------|-------------------------------------------------------|
// | PyRanks::busy_| Use    | Use     | acquire, release | one thread at a time uses the meeting and its numbers |
// |               |        | busy    | relaxed          | a hint for the thread that was refused                |
#include <pybind11/stl.h>

#include <atomic>
#include <exception>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/comm_call.h"
#include "bindings/engine_data.h"
#include "bindings/feed.h"
#include "bindings/gil.h"
#include "bindings/replicas.h"
#include "comm/hybrid_meeting.h"
#include "comm/rank_meeting.h"
#include "ops/reduce_update/meeting_resource.h"
#include "program/rank_source.h"

namespace gradring {

namespace {

using Handle = std::shared_ptr<CommHandle>;

// Runs signal handlers while a rank waits in a meeting. The error of a handler is kept until the step has ended, so that all ranks
// stop after the same update; if the meeting does not end soon, the rank leaves it.
class StepWaiter final : public Waiter {
 public:
  StepWaiter() noexcept = default;
  ~StepWaiter() override { Py_XDECREF(error_); }
  bool interrupted() noexcept override {
    if (error_ == nullptr) {
      error_ = with_python([]() -> PyObject* {
        if (PyErr_CheckSignals() == 0) return nullptr;
        PyObject *type = nullptr, *error = nullptr, *trace = nullptr;
        PyErr_Fetch(&type, &error, &trace);
        PyErr_NormalizeException(&type, &error, &trace);
        if (trace) PyException_SetTraceback(error, trace);
        Py_XDECREF(type);
        Py_XDECREF(trace);
        return error;
      });
      if (error_ == nullptr) return false;
      until_ = Clock::now() + kGrace;
    }
    return Clock::now() >= until_;
  }
  // The exception of a signal handler, or None. Needs the GIL.
  py::object error() const { return error_ == nullptr ? py::none() : py::reinterpret_borrow<py::object>(error_); }

 private:
  static constexpr std::chrono::seconds kGrace{2};
  PyObject* error_ = nullptr;
  Deadline until_ = kNoDeadline;
};

// A rank's meetings as a trainer uses them.
class PyRanks final : public RankStep {
 public:
  explicit PyRanks(Handle handle) : handle_(std::move(handle)) {
    Code code = Code::kOk;
    waiting([&](Waiter* waiter) { meeting_ = RankMeeting::make(handle_->group, waiter, &code); });
    fail_unless(code == Code::kOk, code, Collective::kShare);
  }

  RankMeeting& meeting() { return *meeting_; }
  std::shared_ptr<MeetingResource> resource() { return std::make_shared<MeetingResource>(*meeting_, meeting_); }

  // The meetings of so many replicas of each rank. All ranks call it.
  std::shared_ptr<HybridMeetings> with_replicas(int replicas) {
    const Use use(busy_);
    Code code = Code::kOk;
    std::shared_ptr<HybridMeetings> made;
    waiting([&](Waiter* waiter) { made = HybridMeetings::make(meeting_, replicas, waiter, &code); });
    if (!made) withdraw();
    fail_unless(made != nullptr, code, Collective::kShare);
    return made;
  }

  // Arenas that all ranks have in common: new ones of these sizes. The first of them replaces `keep`'s memory, with the bytes of
  // rank 0.
  std::vector<std::shared_ptr<SharedArena>> share(const std::vector<size_t>& sizes,
                                                  const std::shared_ptr<SharedArena>& keep) {
    const Use use(busy_);
    std::vector<size_t> parts;
    if (keep) parts.push_back(keep->size());
    parts.insert(parts.end(), sizes.begin(), sizes.end());
    Code code = Code::kOk;
    std::shared_ptr<SharedRegion> region;
    waiting([&](Waiter* waiter) { region = handle_->group->share(parts, waiter, &code); });
    if (code == Code::kOutOfMemory && !handle_->group->closed()) {
      throw Error(code, "[Trainer] no shared memory of " + std::to_string(SharedRegion::bytes_of(parts) >> 20) +
                            " MiB for the ranks' parameters, gradients and optimizer state");
    }
    if (code != Code::kOk) withdraw();
    fail_unless(code == Code::kOk, code, Collective::kShare);
    std::vector<std::shared_ptr<SharedArena>> made;
    for (size_t part = keep ? 1 : 0; part < region->parts(); ++part) {
      made.push_back(std::make_shared<SharedArena>(
          SharedArena::part_of(region->fd(), region->offset(part), region->bytes(part), region)));
      meeting_->hold(made.back());
    }
    if (keep) {
      keep->move_to(region->fd(), region->offset(0), region, meeting_->rank() == 0);
      meeting_->hold_parameters(keep);
    }
    Call barrier;  // behind it, every rank reads what rank 0 has written
    barrier.agreement.kind = Collective::kBarrier;
    waiting([&](Waiter* waiter) { code = handle_->group->run(barrier, waiter); });
    if (code != Code::kOk) withdraw();
    fail_unless(code == Code::kOk, code, Collective::kBarrier);
    return made;
  }

  py::tuple meet(uint32_t purpose, double loss_sum, double loss_weight, int64_t correct, int64_t rows,
                 uint32_t reason) {
    const Use use(busy_);
    Brought mine;
    mine.loss_sum = loss_sum, mine.loss_weight = loss_weight, mine.correct = correct;
    waiting([&](Waiter* waiter) {
      meeting_->set_waiter(waiter);
      meeting_->meet_for(purpose, mine, rows, reason);
      meeting_->set_waiter(nullptr);
    });
    require_met();
    py::list brought;
    for (int r = 0; r < meeting_->size(); ++r) {
      const Brought& one = meeting_->of(r);
      brought.append(py::make_tuple(one.loss_sum, one.loss_weight, one.correct, meeting_->rows_of(r), one.fault));
    }
    return py::tuple(brought);
  }

  void stop(uint32_t reason) {
    const Use use(busy_);
    waiting([&](Waiter* waiter) {
      meeting_->set_waiter(waiter);
      meeting_->stop(reason);
      meeting_->set_waiter(nullptr);
    });
    require_met();
  }

  // Runs f with the GIL released. A failure of the group raises, and before that the arenas become private.
  template <class F>
  ChunkResult run(const F& f) {
    const Use use(busy_);
    if (meeting_->torn()) {
      throw Error(Code::kInternal,
                  "[Trainer] the parameters are torn: some ranks have applied an update and others have not; load a "
                  "checkpoint");
    }
    ChunkResult result;
    waiting([&](Waiter* waiter) {
      meeting_->set_waiter(waiter);
      result = f();
      meeting_->set_waiter(nullptr);
    });
    if (meeting_->outcome() == RankMeeting::Outcome::kFailed) require_met();
    if (result.fault == Fault::kCallback && meeting_->outcome() != RankMeeting::Outcome::kMet) {
      result.fault = Fault::kNone;
      result.end = meeting_->outcome() == RankMeeting::Outcome::kEnded ? ChunkEnd::kEpoch : ChunkEnd::kError;
    }
    return result;
  }

  bool may_step(Engine& engine, Mode mode, int64_t rows) noexcept override {
    return !meeting_->torn() && engine.programs(mode).find(rows) != nullptr;
  }
  bool take(Engine& engine, Batch batch, Mode mode, const double* rates, int64_t rate_columns) noexcept override {
    Executor& executor = *engine.programs(mode).find(batch.rows);
    return take_by(engine, batch, [&](const Batch& numbered) {
      return engine.step(executor, numbered, rates, rate_columns, meeting_.get());
    });
  }
  // Takes one step together with the other ranks: step(batch) is this rank's part.
  template <class Step>
  bool take_by(Engine& engine, Batch batch, const Step& step) noexcept {
    step_result_ = {};
    step_error_ = nullptr;
    try {
      // The rows are numbered after those of the ranks before this one, as a RankSource does it.
      batch.samples = engine.row_numbers(batch.rows * (meeting_->rank() + 1)) + batch.rows * meeting_->rank();
      step_result_ = run([&] {
        meeting_->bring(batch.rows, false);
        return step(batch);
      });
      // A signal may have come while this rank computed, and no meeting was long enough to run its handler. After this function
      // the handler would raise in the user's frame, from which nothing tells the other ranks.
      StepWaiter waiter;
      if (interrupt_.is_none()) (void)waiter.interrupted();
      keep_error_of(waiter);
    } catch (...) {
      step_error_ = std::current_exception();
      return false;
    }
    return step_result_.fault == Fault::kNone && step_result_.end != ChunkEnd::kError &&
           meeting_->outcome() == RankMeeting::Outcome::kMet && interrupt_.is_none();
  }
  // How the last step of `take` has ended; throws its exception.
  py::dict end_of_step() {
    if (step_error_) std::rethrow_exception(std::exchange(step_error_, nullptr));
    return result_of(step_result_);
  }

  bool busy() const noexcept { return busy_.load(std::memory_order_relaxed); }
  void mend() {
    const Use use(busy_);
    meeting_->mend();
  }

  py::object interrupt() { return std::exchange(interrupt_, py::none()); }
  const char* outcome() const {
    constexpr const char* names[] = {"met", "ended", "stopped", "different", "failed"};
    return names[static_cast<int>(meeting_->outcome())];
  }

 private:
  // Occupies the meeting, which serves one thread at a time, as long as this object lives.
  class Use {
   public:
    explicit Use(std::atomic<bool>& busy) : busy_(busy) {
      if (busy_.exchange(true, std::memory_order_acquire)) {
        throw Error(Code::kUnavailable,
                    "[Trainer] another thread is using this trainer, whose ranks meet in each step: use it from one "
                    "thread at a time, or with a lock around it");
      }
    }
    ~Use() { busy_.store(false, std::memory_order_release); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    std::atomic<bool>& busy_;
  };

  template <class F>
  void waiting(const F& f) {
    StepWaiter waiter;
    {
      const GilRelease release;
      f(&waiter);
    }
    keep_error_of(waiter);
  }
  void keep_error_of(const StepWaiter& waiter) {
    if (!waiter.error().is_none()) interrupt_ = waiter.error();
  }

  void fail_unless(bool good, Code code, Collective kind) {
    if (good) return;
    if (code == Code::kInterrupted && !interrupt_.is_none()) {
      const py::object error = interrupt();
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
      throw py::error_already_set();
    }
    Call call;
    call.agreement.kind = kind;
    raise_comm_failure(*handle_, code, call);
  }

  void require_met() {
    if (meeting_->outcome() != RankMeeting::Outcome::kFailed) return;
    withdraw();
    fail_unless(false, meeting_->code(), Collective::kMeeting);
  }

  void withdraw() {
    const GilRelease release;
    meeting_->withdraw();
  }

  Handle handle_;
  std::shared_ptr<RankMeeting> meeting_;
  std::atomic<bool> busy_{false};
  py::object interrupt_ = py::none();
  ChunkResult step_result_;
  std::exception_ptr step_error_;
};

// The batches of one rank.
class RankFeed final : public PyFeed {
 public:
  RankFeed(PyFeed& own, PyRanks& ranks, bool own_numbers, int64_t whole_rows)
      : own_(own), source_(own.feed(), ranks.meeting(), own_numbers, whole_rows) {
    use(&source_);
  }
  ~RankFeed() override { drop_waiting(); }

  const std::vector<size_t>& bytes_of_rows() const override { return own_.bytes_of_rows(); }
  py::object take_error() override { return own_.take_error(); }
  int64_t rows_here(const Batch& batch) const override { return source_.own_rows(batch).rows; }

 private:
  PyFeed& own_;
  RankSource source_;
};

// The steps of the replicas of this process.
class ReplicaStep final : public RankStep {
 public:
  explicit ReplicaStep(PyReplicas& replicas) noexcept : replicas_(replicas) {}
  bool may_step(Engine&, Mode mode, int64_t rows) noexcept override {
    return !replicas_.torn() && replicas_.engines().ready(mode, rows);
  }
  bool take(Engine& engine, Batch batch, Mode mode, const double* rates, int64_t rate_columns) noexcept override {
    try {
      batch.samples = engine.row_numbers(batch.rows);
    } catch (...) {
      return false;  // the usual way raises the error
    }
    const GilRelease release;
    const ChunkResult result = replicas_.step(batch, step_options(engine, mode, rates, rate_columns));
    return result.fault == Fault::kNone && result.end == ChunkEnd::kSteps;
  }

 private:
  PyReplicas& replicas_;
};

// The steps of ranks that have replicas.
class HybridStep final : public RankStep {
 public:
  HybridStep(PyRanks& ranks, PyReplicas& replicas) noexcept : ranks_(ranks), replicas_(replicas) {}
  bool may_step(Engine&, Mode mode, int64_t rows) noexcept override {
    return !replicas_.torn() && replicas_.engines().ready(mode, rows);
  }
  bool take(Engine& engine, Batch batch, Mode mode, const double* rates, int64_t rate_columns) noexcept override {
    return ranks_.take_by(engine, batch, [&](const Batch& numbered) {
      ChunkOptions options = step_options(engine, mode, rates, rate_columns);
      options.ranks = &ranks_.meeting();
      return replicas_.step(numbered, options);
    });
  }

 private:
  PyRanks& ranks_;
  PyReplicas& replicas_;
};

}  // namespace

std::shared_ptr<RankStep> rank_step_of(const py::object& ranks) {
  if (py::isinstance<py::tuple>(ranks)) {
    const auto pair = ranks.cast<py::tuple>();
    return std::make_shared<HybridStep>(pair[0].cast<PyRanks&>(), pair[1].cast<PyReplicas&>());
  }
  if (py::isinstance<PyReplicas>(ranks)) return std::make_shared<ReplicaStep>(ranks.cast<PyReplicas&>());
  return {std::shared_ptr<void>(), &ranks.cast<PyRanks&>()};  // the caller keeps it
}

std::shared_ptr<HybridMeetings> hybrid_meetings(const py::object& ranks, int replicas) {
  return ranks.cast<PyRanks&>().with_replicas(replicas);
}

void bind_ranks(py::module_& m) {
  py::class_<PyRanks>(m, "Ranks", "The ranks that train one model together, as one of them sees them.")
      .def(py::init<Handle>(), py::arg("group"), "All ranks of the group call it.")
      .def("meeting", &PyRanks::resource)
      .def(
          "share", &PyRanks::share, py::arg("sizes"), py::arg("keep").none(true),
          "Make arenas of these sizes that all ranks have in common. `keep` moves there too, with the bytes of rank 0.")
      .def("meet", &PyRanks::meet, py::arg("purpose"), py::arg("loss_sum") = 0.0, py::arg("loss_weight") = 0.0,
           py::arg("correct") = 0, py::arg("rows") = 0, py::arg("reason") = 0,
           "Meet outside of steps. Return what each rank has brought, in the order of ranks. See outcome.")
      .def("stop", &PyRanks::stop, py::arg("reason"),
           "Tell the other ranks that this rank stops, in any kind of meeting.")
      .def_property_readonly("outcome", &PyRanks::outcome,
                             "Of the last meeting: met, ended, stopped, different or failed.")
      .def_property_readonly("culprit", [](PyRanks& p) { return p.meeting().culprit(); })
      .def("purpose_of", [](PyRanks& p, int rank) { return p.meeting().purpose_of(rank); })
      .def("reason_of", [](PyRanks& p, int rank) { return p.meeting().of(rank).fault; })
      .def("interrupt", &PyRanks::interrupt, "The exception of a signal handler that came in a meeting, or None.")
      .def_property_readonly("torn", [](PyRanks& p) { return p.meeting().torn(); })
      .def_property_readonly("withdrawn", [](PyRanks& p) { return p.meeting().withdrawn(); })
      .def_property_readonly("busy", &PyRanks::busy, "Whether a thread of this rank is in a meeting or a step.")
      .def("mend", &PyRanks::mend)
      .def("end_of_step", &PyRanks::end_of_step, "How the last step of the fast path has ended; raises its exception.")
      .def(
          "chunk",
          [](PyRanks& p, Engine& e, PyFeed& feed, const RateArray& rates, int64_t most_steps, double seconds,
             bool weighted, PyReplicas* replicas) {
            const EngineGuard guard(e, true);
            ChunkOptions options = options_for(e, true, rates, most_steps, seconds);
            options.weighted = weighted;
            options.ranks = &p.meeting();
            Totals totals;
            const ChunkResult result = p.run([&] {
              if (replicas == nullptr) return e.chunk(true, feed.feed(), options, &totals);
              return replicas->counted([&] { return replicas->engines().chunk(feed.feed(), options, &totals); });
            });
            e.totals().add(totals);
            return py::make_tuple(result_of(result, feed), totals_of(totals));
          },
          py::arg("engine"), py::arg("feed"), py::arg("rates"), py::arg("most_steps"), py::arg("seconds"),
          py::arg("weighted"), py::arg("replicas").none(true),
          "Do what Engine.chunk does, or Replicas.chunk if this rank has replicas, together with the other ranks.")
      .def(
          "flush",
          [](PyRanks& p, Engine& e, int64_t rows, const RateArray& rates, bool weighted, PyReplicas* replicas) {
            const EngineGuard guard(e, true);
            const Mode mode = mode_of(true, weighted);
            Executor* executor = replicas == nullptr ? e.programs(mode).find(rows) : nullptr;
            if (replicas == nullptr ? executor == nullptr : !replicas->engines().ready(mode, rows))
              throw Error(Code::kInvalidArgument, "[Ranks.flush] there is no program for this batch");
            ChunkOptions options = options_for(e, true, rates, -1, 0);
            options.weighted = weighted;
            options.ranks = &p.meeting();
            return result_of(p.run([&] {
              p.meeting().bring(0, false);  // the last step may have told that this rank's source has ended
              if (replicas != nullptr) {
                return replicas->counted([&] { return replicas->engines().flush(rows, options, &e.totals()); });
              }
              return flush_updates(e.team(), *executor, options, &e.state(), &e.totals());
            }));
          },
          py::arg("engine"), py::arg("rows"), py::arg("rates"), py::arg("weighted"), py::arg("replicas").none(true),
          "Do what Engine.flush does, together with the other ranks.");

  py::class_<RankFeed, PyFeed>(m, "RankFeed", "One epoch of the batches of a rank, until those of all ranks are over.")
      .def(py::init<PyFeed&, PyRanks&, bool, int64_t>(), py::arg("feed"), py::arg("ranks"), py::arg("own_numbers"),
           py::arg("whole_rows") = 0, py::keep_alive<1, 2>(), py::keep_alive<1, 3>());
}

}  // namespace gradring
