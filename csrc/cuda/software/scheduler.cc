// Decides which queued operation runs when. Each operation has an identity of its own for ThreadSanitizer. It is ordered
// after the call that queued it and after the operations that it waits for, and after nothing else.
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <utility>

#include "cuda/software/entry.h"
#include "cuda/software/fiber.h"
#include "cuda/software/report.h"
#include "cuda/software/sanitizers.h"

namespace gradring::software {

Operation::~Operation() { destroy_identity(identity); }

namespace {

bool is_ready(const Operation& operation) {
  return std::all_of(operation.after.begin(), operation.after.end(), [](const auto& each) { return each->done; });
}

// Whether an operation fails. CUDA reports such a failure at the next call.
bool fails_now(State& device) {
  const int number = ++device.calls["run"];
  for (const Fault& each : device.options.faults) {
    if (each.call != "run" || each.number != number) continue;
    device.sticky = static_cast<cudaError_t>(each.code);
    return true;
  }
  return device.sticky != cudaSuccess;
}

GridOptions grid_options(Operation& operation) {
  State& device = state();
  return {device.options.order, device.random(), 2048 * device.options.processors, &operation.spare};
}

// A host function that runs, the context that called it, and its own.
struct HostCall {
  const std::function<void()>* function;
  Context caller, own;
};
HostCall* beginning = nullptr;  // the next one to enter; it leaves this variable before another thread may get the lock

void enter_host_function() {
  finish_first_switch();
  HostCall* const call = beginning;
  Lock::give();
  (*call->function)();
  Lock::take();
  switch_context(&call->own, &call->caller, true);
  std::abort();
}

// Runs a host function without the lock. To ThreadSanitizer it is another thread than its caller, so there it gets a stack of its
// own: on the caller's stack, its variables would lie where the caller has its own at other times, which would look like races.
void run_unlocked(const std::function<void()>& function) {
  if (!kThreadSanitizer) {
    Lock::give();
    function();
    Lock::take();
    return;
  }
  begin_unseen();
  char* const stack = take_stack();
  HostCall call{&function, {}, {}};
  call.caller.identity = current_identity();
  prepare(&call.own, stack, enter_host_function);
  call.own.identity = call.caller.identity;
  end_unseen();
  beginning = &call;
  switch_context(&call.caller, &call.own, false);
  begin_unseen();
  return_stack(stack);
  end_unseen();
}

// Runs an operation to its end, or until it only spins. Returns false if it spins.
bool execute(const OperationRef& operation) {
  State& device = state();
  Operation& op = *operation;
  void* const caller = current_identity();
  const bool first = !op.begun;
  op.begun = true;
  const bool fails = first && fails_now(device);
  if (first) {
    for (const OperationRef& each : op.after) op.spare.put_all(&each->spare);
    if (op.work.launch) op.spare.put_all(&device.former);
  }
  if (first && op.work.launch && !fails) op.grid = std::make_unique<Grid>(op.work.launch(), grid_options(op));
  take_identity(op.identity);
  if (first) {
    for (const OperationRef& each : op.after) announce_after(&each->edge);
  }
  bool done = true;
  if (op.grid) {
    begin_unseen();
    done = op.grid->step();
    end_unseen();
  } else if (!fails && op.work.run) {
    if (op.work.unlocked) {
      run_unlocked(op.work.run);
    } else {
      op.work.run();
    }
  }
  if (done) announce_before(&op.edge);
  take_identity(caller);
  if (!done) return false;
  const auto known = device.options.microseconds.find(op.work.name);
  device.finished += known == device.options.microseconds.end() ? 1 : known->second;
  op.finished_at = device.finished;
  op.grid.reset();
  op.work = {};
  op.done = true;
  destroy_identity(std::exchange(op.identity, nullptr));
  op.after.clear();
  std::erase(device.pending, operation);
  return true;
}

// Runs one ready operation, which the schedule chooses. Returns false if none could continue.
bool run_one() {
  State& device = state();
  std::vector<OperationRef> ready;
  for (const OperationRef& each : device.pending) {
    if (is_ready(*each) && !(each->begun && each->work.unlocked)) ready.push_back(each);
  }
  if (device.options.schedule == Schedule::kSeeded) {
    std::shuffle(ready.begin(), ready.end(), device.random);
    // If all streams advance alike, none falls far behind. So every second seed prefers some streams to others, for a while.
    if (device.options.seed % 2 == 0) {
      std::stable_sort(ready.begin(), ready.end(),
                       [](const auto& one, const auto& other) { return one->rank < other->rank; });
    }
  }
  for (const OperationRef& each : ready) {
    if (!each->done && execute(each)) return true;
  }
  return false;
}

// Runs `operation` and what it waits for, and nothing else.
bool run_needed(const OperationRef& operation) {
  if (operation->done) return true;
  const std::vector<OperationRef> after = operation->after;
  for (const OperationRef& each : after) {
    if (!run_needed(each)) return false;
  }
  return operation->done || (!(operation->begun && operation->work.unlocked) && execute(operation));
}

// Runs one of the operations that `operation` needs, or itself. Returns false if none of them could continue.
bool run_one_needed(const OperationRef& operation) {
  for (const OperationRef& each : std::vector<OperationRef>(operation->after)) {
    if (!each->done) return run_one_needed(each);
  }
  return !(operation->begun && operation->work.unlocked) && execute(operation);
}

}  // namespace

OperationRef queue(CUstream_st& stream, Work work, std::vector<OperationRef> after) {
  OperationRef operation(new Operation);
  operation->work = std::move(work);
  if (State& device = state(); device.random() % 16 == 0) stream.rank = device.random();
  operation->rank = stream.rank;
  for (const OperationRef& each : after) {
    if (each) operation->after.push_back(each);
  }
  operation->identity = new_identity();
  state().pending.push_back(operation);
  return operation;
}

void let_run() {
  if (state().options.schedule != Schedule::kEager) return;
  while (run_one()) {
  }
}

void let_run_for_query(OperationRef operation) {
  if (state().options.schedule != Schedule::kLazy || !run_one_needed(operation)) run_one();
}

void run_some() {
  for (uint64_t left = state().random() % 3; left > 0 && run_one(); --left) {
  }
}

void wait_for(OperationRef operation) {
  if (!operation) return;
  auto begin = std::chrono::steady_clock::now();
  int64_t moves = grid_moves;
  while (!operation->done) {
    bool moved = state().options.schedule == Schedule::kLazy && run_needed(operation);
    if (!moved) moved = run_one();
    if (moved || moves != grid_moves) {
      begin = std::chrono::steady_clock::now();
      moves = grid_moves;
      continue;
    }
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
    if (waited.count() > state().options.patience_seconds) {
      fail("'%s' waits for ever: everything that could run spins", operation->work.name.c_str());
    }
    Lock::give();  // let another thread of the host run: it may provide what this waits for
    sched_yield();
    Lock::take();
  }
  announce_after(&operation->edge);
}

void finish_all() {
  const std::vector<OperationRef> all = state().pending;
  for (const OperationRef& each : all) wait_for(each);
}

// Queues work in stream order. The legacy stream also waits for all blocking streams of its device, and they wait for
// it.
cudaError_t submit(CUstream_st& stream, Work work, std::vector<OperationRef> more) {
  State& device = state();
  if (stream.capture) {
    if (stream.capture->broken) return note(cudaErrorStreamCaptureInvalidated);
    stream.capture->nodes.push_back({std::move(work), stream.capture_tail});
    stream.capture_tail = {static_cast<int>(stream.capture->nodes.size()) - 1};
    return cudaSuccess;
  }
  // What the lazy schedule needs, it runs in this order, so that the work of other streams is as late as it may be.
  more.insert(more.begin(), stream.tail);
  CUstream_st* const legacy = device.streams[static_cast<size_t>(stream.device)];
  if (stream.legacy) {
    for (CUstream_st* each : device.streams) {
      if (each->device != stream.device || !each->blocking || each->legacy) continue;
      if (each->capture && each->capture->mode != cudaStreamCaptureModeRelaxed) {
        each->capture->broken = true;
        return note(cudaErrorStreamCaptureImplicit);
      }
      more.push_back(each->tail);
    }
  } else if (stream.blocking) {
    more.push_back(legacy->tail);
  }
  stream.tail = queue(stream, std::move(work), std::move(more));
  let_run();
  return cudaSuccess;
}

}  // namespace gradring::software
