// Tests of ranks that die, stop, leave or call another operation, at each step of each operation.
#include <doctest/doctest.h>
#include <signal.h>

#include <cstring>
#include <numeric>

#include "comm/testing.h"
#include "runtime/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// The operation that is tested, on arrays of `count` floats.
Code run_one(Group& group, Collective kind, int64_t count, bool shared) {
  const auto n = static_cast<int64_t>(group.size());
  const bool gathers = kind == Collective::kAllGather, scatters = kind == Collective::kReduceScatter;
  Memory in(group, static_cast<size_t>(scatters ? count * n : count) * 4, shared);
  Memory out(group, static_cast<size_t>(gathers ? count * n : count) * 4, shared);
  std::memset(in.as(), 0, static_cast<size_t>(count) * 4);
  const CommOperand x(in.as(), scatters ? count * n : count, 4);
  CommOperand y(out.as(), gathers ? count * n : count, 4);
  if (kind == Collective::kAllReduce || kind == Collective::kBroadcast) y = x;
  if (kind == Collective::kSplit) {
    Code code = Code::kOk;
    const auto part = group.split(0, 0, nullptr, &code);
    return code == Code::kOk && (!part || part->size() != group.size()) ? Code::kInternal : code;
  }
  if (kind == Collective::kSend) {  // from each even rank to the next
    Call call = call_of(group.rank() % 2 ? Collective::kReceive : Collective::kSend, x, x, Element::kFloat32);
    call.peer = group.rank() ^ 1;
    return call.peer < group.size() ? group.run(call) : Code::kOk;
  }
  return group.run(call_of(kind, x, y, Element::kFloat32));
}

struct Doom {
  const char* place;
  int rank;
  int signal;
  int passes;  // how often it passes the place before it fails there
};
Doom doom{};

void strike(const char* place, int rank) noexcept {
  if (rank != doom.rank || std::strcmp(place, doom.place) != 0 || doom.passes-- != 0) return;
  raise(doom.signal);
}

constexpr Collective kAll[] = {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                               Collective::kBroadcast, Collective::kBarrier,       Collective::kSend,
                               Collective::kSplit};
constexpr const char* kPlaces[] = {"begin",        "before publish", "after publish", "staged",
                                   "before write", "within write",   "after write",   "reduced"};

}  // namespace

TEST_CASE("a rank killed at any step of any operation is noticed within a second by every other" *
          doctest::skip(kThreadSanitized)) {
  for (const Collective kind : kAll) {
    for (const char* place : kPlaces) {
      for (const bool shared : {true, false}) {
        for (const int64_t count : {int64_t{3}, int64_t{60000}}) {
          if (count == 3 && (shared || place != kPlaces[1])) continue;
          const int ranks = 2 + (kind == Collective::kAllReduce && !shared);
          doom = {place, 1, SIGKILL, 1};
          failpoint_action.store(strike, std::memory_order_relaxed);
          const auto statuses = in_processes(ranks, [&](Group& group) {
            Code code = Code::kOk;
            Deadline begin = Clock::now();
            for (int i = 0; i < 8 && code == Code::kOk; ++i) {
              begin = Clock::now();
              code = run_one(group, kind, count, shared);
            }
            if (code == Code::kOk) return 10;
            const GroupFault fault = group.fault();
            if (code != Code::kPeerDied || fault.failure.rank != 1) return 20;
            if (Clock::now() - begin > promised(seconds(1))) return 21;
            Call again;
            again.agreement.kind = Collective::kBarrier;
            return group.run(again) == Code::kPeerDied ? 0 : 22;  // the group refuses further operations
          });
          failpoint_action.store(nullptr, std::memory_order_relaxed);
          INFO(collective_name(kind), " ", place, " ", shared, " ", count);
          const bool died = WIFSIGNALED(statuses[1]) && WTERMSIG(statuses[1]) == SIGKILL;
          for (int rank = 0; rank < ranks; ++rank) {
            if (rank == 1) continue;
            CHECK(statuses[static_cast<size_t>(rank)] == (died ? 0 : 10 << 8));
          }
          if (!died) CHECK(statuses[1] == 10 << 8);  // this operation does not pass this place
        }
      }
    }
  }
}

TEST_CASE("a rank that stops amid its writes cannot touch a survivor's arrays once it goes on" *
          doctest::skip(kThreadSanitized)) {
  constexpr int64_t kCount = 400000;
  doom = {"within write", 1, SIGSTOP, 3};
  failpoint_action.store(strike, std::memory_order_relaxed);
  int* const gate = static_cast<int*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  auto& raised = *reinterpret_cast<std::atomic<int>*>(gate);
  auto& resumed = *reinterpret_cast<std::atomic<int>*>(gate + 1);
  const auto statuses = in_processes(
      2,
      [&](Group& group) {
        Memory memory(group, kCount * 4, true);
        auto* const x = memory.as<float>();
        std::iota(x, x + kCount, static_cast<float>(group.rank()));
        const CommOperand all(x, kCount, 4);
        const Code code = group.run(reduce_call(all, all, Element::kFloat32, Reduction::kSum));
        if (group.rank() == 1) {  // this rank continues here after SIGCONT
          resumed.store(1, std::memory_order_release);
          // The stopped rank may find that the operation was complete (both had done their parts), but it is no member
          // any more.
          Call again;
          again.agreement.kind = Collective::kBarrier;
          return (code == Code::kOk || code == Code::kPeerStalled) && group.run(again) == Code::kPeerStalled ? 0 : 30;
        }
        if (code != Code::kPeerStalled || group.fault().failure.rank != 1) {
          std::fprintf(stderr, "%s\n", group.message(code, Call()).c_str());
          return 31;
        }
        const std::vector<float> before(x, x + kCount);
        raised.store(1, std::memory_order_release);
        while (resumed.load(std::memory_order_acquire) == 0) usleep(1000);
        return std::memcmp(before.data(), x, kCount * 4) == 0 ? 0 : 32;
      },
      milliseconds(500),
      [&](const std::vector<pid_t>& children) {
        for (int i = 0; i < 5000 && raised.load(std::memory_order_acquire) == 0; ++i) usleep(1000);
        kill(children[1], SIGCONT);
      });
  failpoint_action.store(nullptr, std::memory_order_relaxed);
  CHECK(statuses[0] == 0);
  CHECK(statuses[1] == 0);
  munmap(gate, 4096);
}

TEST_CASE("ranks that call different things all hear of it, and no operand is written") {
  for (const int64_t count : {int64_t{5}, int64_t{500}, int64_t{50000}}) {
    for (int difference = 0; difference < 5; ++difference) {
      std::atomic<int> good{0};
      on_threads(3, [&](Group& group) {
        const bool odd = group.rank() == 2;
        Memory memory(group, static_cast<size_t>(count + 1) * 8, true);
        auto* const x = memory.as<float>();
        std::fill(x, x + count, 3.f);
        const Element element = odd && difference == 1 ? Element::kInt32 : Element::kFloat32;
        const CommOperand all(x, odd && difference == 0 ? count - 1 : count, 4);
        Call call = reduce_call(all, all, element, odd && difference == 2 ? Reduction::kMax : Reduction::kSum);
        if (odd && difference == 3) call.agreement.kind = Collective::kBroadcast;
        if (odd && difference == 4) {
          call = Call();
          call.agreement.kind = Collective::kBarrier;
        }
        const Code code = group.run(call);
        const bool whole = std::all_of(x, x + count, [](float value) { return value == 3.f; });
        const std::string message = group.message(code, call);
        good.fetch_add(code == Code::kMismatch && whole && message.find("called") != std::string::npos,
                       std::memory_order_relaxed);
      });
      INFO(count, " ", difference);
      CHECK(good.load(std::memory_order_relaxed) == 3);
    }
  }
}

TEST_CASE("a message that does not fit its receiver is a mismatch on both sides") {
  std::atomic<int> good{0};
  on_threads(2, [&](Group& group) {
    std::vector<float> x(5000);
    Call call = call_of(group.rank() ? Collective::kReceive : Collective::kSend,
                        CommOperand(x.data(), group.rank() ? 4000 : 5000, 4), CommOperand(x.data(), 4000, 4),
                        Element::kFloat32);
    call.peer = 1 - group.rank();
    good.fetch_add(group.run(call) == Code::kMismatch, std::memory_order_relaxed);
  });
  CHECK(good.load(std::memory_order_relaxed) == 2);
}

TEST_CASE("a thread rank that ends is noticed; one whose thread changes is not") {
  auto groups = Group::of_threads(2, seconds(20));
  const auto reduce = [](Group& group) {
    float x = 1;
    const CommOperand one(&x, 1, 4);
    const Code code = group.run(reduce_call(one, one, Element::kFloat32, Reduction::kSum));
    return code == Code::kOk && x != 2 ? Code::kInternal : code;
  };
  Code other = Code::kInternal;
  for (int turn = 0; turn < 3; ++turn) {  // a new thread takes over the rank each time
    std::thread thread([&] { other = reduce(*groups[1]); });
    CHECK(reduce(*groups[0]) == Code::kOk);
    thread.join();
    CHECK(other == Code::kOk);
  }
  const Deadline begin = Clock::now();
  CHECK(reduce(*groups[0]) == Code::kPeerDied);
  CHECK(Clock::now() - begin < promised(seconds(1)));
  CHECK(groups[0]->fault().failure.reason == Failure::Reason::kThreadEnded);
  CHECK(reduce(*groups[1]) == Code::kPeerDied);
}

TEST_CASE("a communicator that is dropped or closed is noticed") {
  auto groups = Group::of_threads(3, seconds(20));
  Call barrier;
  barrier.agreement.kind = Collective::kBarrier;
  groups[2].reset();
  Code second = Code::kOk;
  std::thread thread([&] { second = groups[1]->run(barrier); });
  CHECK(groups[0]->run(barrier) == Code::kPeerDied);
  thread.join();
  CHECK(second == Code::kPeerDied);
  CHECK(groups[1]->fault().failure.rank == 2);
  groups[0]->close();
  CHECK(groups[0]->run(barrier) == Code::kClosed);
}

TEST_CASE("a deadline names who did not come and what it does, and waits as long as that takes") {
  auto groups = Group::of_threads(2, milliseconds(100));
  Call barrier;
  barrier.agreement.kind = Collective::kBarrier;
  std::thread keeper([&] { groups[1]->set_activity(Activity::kWaitingForData, milliseconds(700)); });
  keeper.join();
  const Deadline begin = Clock::now();
  CHECK(groups[0]->run(barrier) == Code::kPeerStalled);
  CHECK(Clock::now() - begin >= milliseconds(500));
  const std::string message = groups[0]->message(Code::kPeerStalled, barrier);
  CHECK(message.find("rank 1 did not come") != std::string::npos);
  CHECK(message.find("waiting for data") != std::string::npos);
}

TEST_CASE("a forked child of a rank is refused" * doctest::skip(kThreadSanitized)) {
  auto groups = Group::of_threads(1, seconds(5));
  Call barrier;
  barrier.agreement.kind = Collective::kBarrier;
  CHECK(groups[0]->run(barrier) == Code::kOk);
  CHECK(exit_of_child([&] { return groups[0]->run(barrier) == Code::kUnavailable ? 0 : 1; }) == 0);
  CHECK(groups[0]->run(barrier) == Code::kOk);
}

TEST_CASE("a rank of another generation cannot join, nor can a foreign descriptor be one") {
  const int segment = ControlBlock::create(2, 0), data[] = {OwnSegment::create(), OwnSegment::create()};
  const std::vector<int> none{-1, -1}, fds(data, data + 2);
  {
    auto group = Group::join(segment, 0, 2, 4, none, fds, seconds(1));
    CHECK_THROWS_WITH_AS(Group::join(segment, 1, 2, 3, none, fds, seconds(1)),
                         doctest::Contains("a rank of an earlier start cannot join"), Error);
  }
  CHECK_THROWS_AS(Group::join(segment, 0, 3, 4, {-1, -1, -1}, {data[0], data[1], data[1]}, seconds(1)), Error);
  CHECK_THROWS_AS(Group::join(data[0], 0, 2, 4, none, fds, seconds(1)), Error);
  CHECK_THROWS_AS(Group::join(segment, 2, 2, 4, none, fds, seconds(1)), Error);
  CHECK_THROWS_AS(ControlBlock::create(0, 0), Error);
  CHECK_THROWS_AS(ControlBlock::create(kMostRanks + 1, 0), Error);
  close(segment);
  for (const int fd : data) close(fd);
}
