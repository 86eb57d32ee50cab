#include "comm/group.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

#include "comm/collectives.h"
#include "comm/descriptors.h"
#include "runtime/forks.h"

namespace gradring {

namespace {

constexpr const char* kForked =
    "this process was forked from a rank, and is no rank itself: start ranks with gradring run or gr.comm.spawn";

uint64_t own_thread() noexcept { return static_cast<uint64_t>(pthread_self()); }

bool ends_group(Code code) noexcept {
  return code != Code::kOk && code != Code::kInvalidArgument && code != Code::kClosed && code != Code::kUnavailable;
}

}  // namespace

bool Request::wait(Deadline deadline, Waiter* waiter) noexcept { return await(finished_, deadline, waiter); }

bool Request::await(Signal& signal, Deadline deadline, Waiter* waiter, std::chrono::milliseconds slice) noexcept {
  // Waking the communicator's thread takes longer than a brief spin, so a longer one would cost more than it saves.
  Patience patience{20, 10};
  while (signal.value() == 0) {
    if (waiter) waiter->before_sleep();
    if (signal.wait_change(0, std::min(deadline, Clock::now() + slice), std::exchange(patience, Patience{0, 0})))
      return true;
    if (Clock::now() >= deadline || (waiter && waiter->interrupted())) return signal.value() != 0;
  }
  return true;
}

Group::Group(std::shared_ptr<ControlBlock> control, std::shared_ptr<Segments> segments, int rank,
             std::vector<int> origins, std::vector<int> pidfds, std::chrono::nanoseconds timeout, bool threads)
    : rounds_(control, std::move(segments), rank, std::move(origins), std::move(pidfds), timeout),
      boxes_(control->ranks()),
      thread_rank_(threads ? std::make_unique<ThreadRank>(control, rank) : nullptr) {}

std::shared_ptr<Group> Group::join(int segment_fd, int rank, int size, uint64_t generation,
                                   const std::vector<int>& pidfds, const std::vector<int>& data_fds,
                                   std::chrono::nanoseconds timeout) {
  const auto ranks = static_cast<size_t>(std::max(size, 0));
  if (rank < 0 || rank >= size || pidfds.size() != ranks || data_fds.size() != ranks) {
    throw Error(Code::kInvalidArgument, "[comm] rank is " + std::to_string(rank) + " of " + std::to_string(size) +
                                            ", with " + std::to_string(pidfds.size()) + " pidfds and " +
                                            std::to_string(data_fds.size()) +
                                            " data descriptors: must be below size, with one of each for every rank");
  }
  auto control = ControlBlock::attach(segment_fd, size, generation);
  Descriptors pids, own, data;
  for (size_t i = 0; i < ranks; ++i) {
    pids.add(static_cast<int>(i) == rank ? -1 : pidfds[i]);
    data.add(static_cast<int>(i) == rank ? -1 : data_fds[i]);
  }
  own.add(data_fds[static_cast<size_t>(rank)]);
  auto segments = std::make_shared<Segments>(own.release()[0], rank, data.release());
  std::vector<int> origins(ranks);
  std::iota(origins.begin(), origins.end(), 0);
  return std::shared_ptr<Group>(
      new Group(std::move(control), std::move(segments), rank, std::move(origins), pids.release(), timeout, false));
}

std::vector<std::shared_ptr<Group>> Group::of_threads(int size, std::chrono::nanoseconds timeout) {
  Descriptors control, data;
  const auto adopt = [](Descriptors& to, int fd) {
    try {
      to.add(fd);
    } catch (...) {
      ::close(fd);
      throw;
    }
    ::close(fd);
  };
  adopt(control, ControlBlock::create(size, 0));
  for (int i = 0; i < size; ++i) adopt(data, OwnSegment::create());
  const std::vector<int> fds = data.release(), control_fd = control.release();
  std::vector<std::shared_ptr<Group>> groups;
  try {
    for (int rank = 0; rank < size; ++rank) {
      groups.push_back(join(control_fd[0], rank, size, 0, std::vector<int>(fds.size(), -1), fds, timeout));
      groups.back()->thread_rank_ = std::make_unique<ThreadRank>(groups.back()->rounds_.shared_control(), rank);
    }
  } catch (...) {
    for (const int fd : fds) ::close(fd);
    ::close(control_fd[0]);
    throw;
  }
  for (const int fd : fds) ::close(fd);
  ::close(control_fd[0]);
  return groups;
}

Group::~Group() {
  close(kDropPatience);
  boxes_.free(segments()->own);
}

Group::Executing::Executing(Group& group, Waiter* waiter) noexcept
    : group_(group), lock_(group.executing_, std::try_to_lock) {
  if (!lock_.owns_lock()) {
    // Another thread is in an operation. Its waiter may need what this thread holds, such as Python's lock.
    if (waiter) waiter->before_sleep();
    // Slices of the system's clock, because the thread sanitizer knows no mutex that waits by the monotonic one.
    while (!lock_.try_lock_until(std::chrono::system_clock::now() + Rounds::kSlice)) {
      if (!waiter || !waiter->interrupted()) continue;
      group.rounds_.abandon();  // which also ends the other operation, so that this wait is short
      waiter = nullptr;
    }
  }
  group.executor_.store(own_thread(), std::memory_order_relaxed);
}

bool Group::executes() const noexcept { return executor_.load(std::memory_order_relaxed) == own_thread(); }

bool Group::forked() const noexcept { return queue_.in_child(); }

Code Group::refusal() noexcept {
  if (forked()) return Code::kUnavailable;
  if (closed()) return Code::kClosed;
  if (executes()) return Code::kUnavailable;
  if (thread_rank_) thread_rank_->touch();
  return Code::kOk;
}

void Group::await_end(Request& request, Waiter* waiter) noexcept {
  while (!request.wait(kNoDeadline, waiter)) {
    if (!waiter->interrupted()) continue;
    // The caller's arrays must live until the communicator's thread has left them.
    rounds_.abandon();
    waiter = nullptr;
  }
}

// Messages end in any order, so the last request that was submitted may end before others. A request for no operation does not.
Code Group::drain(Waiter* waiter) noexcept {
  if (pending_.load(std::memory_order_acquire) == 0) return Code::kOk;
  try {
    await_end(*submit(Call()), waiter);
    return Code::kOk;
  } catch (const Error& error) {
    return error.code();
  } catch (...) {
    return Code::kOutOfMemory;
  }
}

Code Group::run(const Call& call, Waiter* waiter) noexcept {
  if (const Code code = refusal(); code != Code::kOk) return code;
  if (pending_.load(std::memory_order_acquire) != 0) {
    try {
      const std::shared_ptr<Request> request = submit(call);
      await_end(*request, waiter);
      return settle(*request);
    } catch (const Error& error) {
      return error.code();
    } catch (...) {
      return Code::kOutOfMemory;
    }
  }
  const Executing lock(*this, waiter);
  return ended(execute(call, waiter));
}

Code Group::execute(const Call& call, Waiter* waiter) noexcept {
  if (const Code code = rounds_.begin(call, waiter); code != Code::kOk) return code;
  const Code code = perform(call);
  rounds_.conceal();
  return code;
}

Code Group::perform(const Call& call) noexcept {
  switch (call.agreement.kind) {
    case Collective::kAllReduce: return all_reduce(rounds_, call);
    case Collective::kReduceScatter: return reduce_scatter(rounds_, call);
    case Collective::kAllGather: return all_gather(rounds_, call);
    case Collective::kBroadcast: return broadcast(rounds_, call);
    case Collective::kBarrier: return barrier(rounds_, call);
    case Collective::kSend:
    case Collective::kReceive: {
      std::vector<std::unique_ptr<Transfer>> transfers;
      transfers.push_back(std::make_unique<Transfer>(call, rounds_.operation()));
      run_transfers(rounds_, boxes_, transfers);
      return transfers[0]->code();
    }
    default: return Code::kInternal;
  }
}

// Before any caller learns of a failure, move the arrays out of the memory that a stalled peer may still write to.
Code Group::ended(Code code) noexcept {
  if (ends_group(code)) [[unlikely]]
    rounds_.segments()->detach();
  return code;
}

// A forked child has its own list of what is free in a segment that it shares with its parent: both would use the same bytes.
void* Group::allocate(size_t bytes) {
  if (forked()) throw Error(Code::kUnavailable, "[comm.empty] " + std::string(kForked));
  return rounds_.segments()->own.allocate(bytes);
}

Code Group::settle(Request& request) noexcept { return ended(request.code()); }

void Group::set_activity(Activity activity, std::chrono::nanoseconds patience, bool passing) noexcept {
  if (forked()) return;  // a forked child is no rank, though it could write to its parent's words
  rounds_.set_activity(activity, patience, passing);
}

GroupFault Group::fault() const {
  const std::lock_guard lock(executing_);
  return rounds_.fault();
}

std::string Group::message(Code code, const Call& call) const {
  const std::string op = std::string("[") + collective_name(call.agreement.kind) + "] ";
  switch (code) {
    case Code::kClosed: return op + "the communicator is closed";
    case Code::kUnavailable:
      if (!forked() && executes()) {
        return op +
               "a signal handler called this while its thread waits in another operation of this communicator: set a "
               "flag in the handler, and look at it between operations";
      }
      return op + kForked;
    case Code::kInvalidArgument: return op + "the ranks' weights add up to 0: there is no mean";
    default: break;
  }
  std::string text = fault().message(rank());
  if (const size_t left = segments()->own.left_shared()) {
    text += "; memory ran out, and " + std::to_string(left) +
            " bytes of this rank's arrays are still shared: another rank that resumes may write to them; copy them, or "
            "free memory and close the communicator";
  }
  return text;
}

}  // namespace gradring
