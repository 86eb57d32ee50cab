// The communicator's thread.
#include <signal.h>

#include "comm/group.h"
#include "runtime/forks.h"

namespace gradring {

namespace {

bool is_transfer(const Call& call) noexcept {
  return call.agreement.kind == Collective::kSend || call.agreement.kind == Collective::kReceive;
}

}  // namespace

// Ends the wait of close() for operations that cannot begin before another thread's operation has ended.
class Group::CloseWaiter final : public Waiter {
 public:
  CloseWaiter(const Group& group, Waiter* waiter) noexcept : group_(group), waiter_(waiter) {}
  void before_sleep() noexcept override {
    if (waiter_) waiter_->before_sleep();
  }
  bool interrupted() noexcept override {
    // The communicator's thread is no executor.
    return group_.executor_.load(std::memory_order_relaxed) != 0 || (waiter_ && waiter_->interrupted());
  }

 private:
  const Group& group_;
  Waiter* waiter_;
};

std::shared_ptr<Request> Group::submit(Call call) {
  if (const Code code = refusal(); code != Code::kOk) throw Error(code, message(code, call));
  auto request = std::make_shared<Request>(std::move(call));
  std::unique_lock lock(queue_mutex_);
  if (stop_) throw Error(Code::kClosed, message(Code::kClosed, request->call()));
  if (!worker_) {
    // Block signals in the new thread: they are for the program's own threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    try {
      worker_ = std::make_unique<std::thread>([this] {
        work();
        worker_ended_.publish(1);
      });
    } catch (const std::exception&) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw Error(Code::kOutOfMemory, "[comm] the system starts no thread for operations with async_op");
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  queue_->push_back(request);
  pending_.fetch_add(1, std::memory_order_acq_rel);
  lock.unlock();  // the thread that wakes takes it
  queue_changed_->notify_one();
  // Wake the worker. It may be waiting for a message, and can work on this request while the message is on its way.
  rounds_.ring_own_bell();
  return request;
}

void Group::work() {
  for (;;) {
    std::shared_ptr<Request> request;
    {
      std::unique_lock lock(queue_mutex_);
      queue_changed_->wait(lock, [this] { return stop_ || !queue_->empty(); });
      if (queue_->empty()) return;
      request = std::move(queue_->front());
      queue_->pop_front();
    }
    const std::lock_guard lock(executing_);
    if (request->call().agreement.kind == Collective::kNone) {  // of drain: all requests before it have ended
      pending_.fetch_sub(1, std::memory_order_acq_rel);
      request->finish(Code::kOk);
    } else if (is_transfer(request->call())) {
      work_on_transfers(std::move(request));
    } else {
      const Code code = ended(execute(request->call(), nullptr));
      pending_.fetch_sub(1, std::memory_order_acq_rel);
      request->finish(code);
    }
  }
}

// Runs messages side by side, until all that were submitted before the next collective are done.
void Group::work_on_transfers(std::shared_ptr<Request> first) {
  std::vector<std::shared_ptr<Request>> requests;
  std::vector<std::unique_ptr<Transfer>> transfers;
  const auto add = [&](std::shared_ptr<Request> request) {
    const Code code = rounds_.begin(request->call(), nullptr);
    transfers.push_back(std::make_unique<Transfer>(request->call(), rounds_.operation()));
    if (code != Code::kOk) transfers.back()->end(code);
    requests.push_back(std::move(request));
  };
  add(std::move(first));
  std::vector<Awaited> awaited;
  while (!transfers.empty()) {
    const uint32_t seen = rounds_.bell();
    {
      const std::lock_guard lock(queue_mutex_);
      while (!queue_->empty() && is_transfer(queue_->front()->call())) {
        add(std::move(queue_->front()));
        queue_->pop_front();
      }
    }
    if (!step_transfers(rounds_, boxes_, transfers)) await_transfers(rounds_, seen, transfers, awaited);
    for (size_t i = 0; i < transfers.size();) {
      if (!transfers[i]->done()) {
        ++i;
        continue;
      }
      const Code code = ended(transfers[i]->code());
      pending_.fetch_sub(1, std::memory_order_acq_rel);
      requests[i]->finish(code);
      const auto at = static_cast<std::ptrdiff_t>(i);
      transfers.erase(transfers.begin() + at);
      requests.erase(requests.begin() + at);
    }
  }
  rounds_.conceal();
}

void Group::close(std::chrono::nanoseconds patience, Waiter* waiter) noexcept {
  if (forked()) {
    // A forked child has neither the thread nor the rank.
    closed_.store(true, std::memory_order_release);
    (void)worker_.release();
    return;
  }
  const Deadline begin = Clock::now();
  const Deadline until = patience < kNoDeadline - begin ? begin + patience : kNoDeadline;
  bool works;
  {
    const std::lock_guard lock(queue_mutex_);
    stop_ = true;
    works = worker_ != nullptr;
  }
  queue_changed_->notify_all();
  // A signal handler must not wait for what its own thread holds. The destructor then waits for the communicator's thread.
  if (works && !executes()) {
    CloseWaiter closing(*this, waiter);
    constexpr std::chrono::milliseconds kGrace{50};  // for another thread's operation, which may be about to end
    if (!Request::await(worker_ended_, until, &closing, kGrace)) {
      rounds_.give_up();
      Request::await(worker_ended_, kNoDeadline, nullptr);
    }
    std::unique_ptr<std::thread> worker;
    {
      const std::lock_guard lock(queue_mutex_);
      worker = std::move(worker_);
    }
    if (worker) worker->join();
  }
  // Another thread may wait in an operation; or this one, if a signal handler closes the group. So do not wait for it.
  rounds_.give_up();
  // The group may have failed without an operation of this rank that has seen it, or a move of the arrays may have lacked memory.
  if (segments()->own.detached() || rounds_.control().failure().reason != Failure::Reason::kNone) segments()->detach();
  if (!closed_.exchange(true, std::memory_order_acq_rel)) rounds_.leave();
}

}  // namespace gradring
