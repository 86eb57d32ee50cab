// Tests of ranks that die, stop, leave or call another operation, at each step of each operation.
#include <doctest/doctest.h>
#include <signal.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "comm/testing.h"
#include "runtime/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// An operation, on arrays that lead it through one way of its protocol, and the places that rank 1 passes on this way.
struct Way {
  Collective kind;
  int ranks;
  bool shared;
  int64_t count;  // of floats
  std::set<std::string> places;
  uint8_t root = 0;
};

using Places = std::set<std::string>;
const Places kMeets{"begin", "before publish", "after publish"};
const Places kInOneRound{"begin", "before publish", "after publish", "before write"};
const Places kWrites{"begin", "before publish", "after publish", "before write", "after write"};
const Places kCopies{"begin", "before publish", "after publish", "after write"};
const Places kInPieces{"begin", "before publish", "after publish", "staged"};

const std::vector<Way>& ways() {
  using enum Collective;
  static const std::vector<Way> all{
      {kAllReduce, 2, false, 3, kWrites},     // in cells
      {kAllReduce, 3, false, 3, kWrites},     // in cells
      {kAllReduce, 3, false, 1000, kWrites},  // in one round
      {kAllReduce,
       2,
       true,
       60000,  // by owners
       {"begin", "before publish", "after publish", "before write", "within write", "after write"}},
      {kAllReduce, 2, false, 60000, kInPieces},  // exchanged
      {kAllReduce,
       3,
       false,
       200000,  // through the owners' places
       {"begin", "before publish", "after publish", "staged", "reduced"}},
      {kReduceScatter, 2, false, 3, kInOneRound},
      {kReduceScatter, 2, true, 60000, kWrites},
      {kReduceScatter, 3, false, 60000, kInPieces},
      {kAllGather, 2, false, 3, kInOneRound},
      {kAllGather, 3, false, 1000, kInOneRound},
      {kAllGather, 2, true, 60000, kCopies},
      {kAllGather, 2, false, 200000, kInPieces},
      {kBroadcast, 2, false, 3, kInOneRound},
      {kBroadcast, 2, true, 60000, kCopies, 1},
      {kBroadcast, 2, false, 200000, kInPieces},
      {kBroadcast, 3, false, 200000, kInPieces, 1},
      {kBarrier, 2, false, 3, kMeets},
      {kSend, 2, false, 3, {"begin", "after write"}},  // rank 1 receives
      {kSend, 2, true, 60000, {"begin", "after write"}},
      {kSend, 2, false, 60000, {"begin", "after write"}},
      {kReceive, 2, false, 3, {"begin", "before publish"}},  // rank 1 sends
      {kReceive, 2, true, 60000, {"begin", "before publish"}},
      {kReceive, 2, false, 60000, {"begin", "staged"}},
      {kSplit, 2, false, 3, {"begin", "before publish", "after publish", "staged", "after write"}},
  };
  return all;
}

Code run_one(Group& group, const Way& way) {
  const auto n = static_cast<int64_t>(group.size());
  const bool gathers = way.kind == Collective::kAllGather, scatters = way.kind == Collective::kReduceScatter;
  const bool sends = way.kind == Collective::kSend || way.kind == Collective::kReceive;
  if (way.kind == Collective::kSplit) {
    Code code = Code::kOk;
    const auto part = group.split(0, 0, nullptr, &code);
    return code == Code::kOk && (!part || part->size() != group.size()) ? Code::kInternal : code;
  }
  const int64_t ins = scatters ? way.count * n : way.count, outs = gathers ? way.count * n : way.count;
  Memory in(group, static_cast<size_t>(ins) * 4, way.shared), out(group, static_cast<size_t>(outs) * 4, way.shared);
  std::memset(in.as(), 0, static_cast<size_t>(ins) * 4);
  const CommOperand x(in.as(), ins, 4);
  CommOperand y(out.as(), outs, 4);
  if (way.kind == Collective::kAllReduce || way.kind == Collective::kBroadcast || sends) y = x;
  Call call = call_of(way.kind, x, y, Element::kFloat32);
  call.agreement.root = way.root;
  if (sends) {
    call.peer = 1 - group.rank();
    call.agreement.kind =
        group.rank() == (way.kind == Collective::kSend ? 0 : 1) ? Collective::kSend : Collective::kReceive;
  }
  return group.run(call);
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

Places passed;  // by rank 1, whose thread alone writes here

void record(const char* place, int rank) noexcept {
  if (rank == 1) passed.insert(place);
}

}  // namespace

TEST_CASE("each way of each operation passes the places at which the next test kills a rank") {
  for (const Way& way : ways()) {
    passed.clear();
    failpoint_action.store(record, std::memory_order_relaxed);
    std::atomic<int> good{0};
    on_threads(way.ranks,
               [&](Group& group) { good.fetch_add(run_one(group, way) == Code::kOk, std::memory_order_relaxed); });
    failpoint_action.store(nullptr, std::memory_order_relaxed);
    INFO(collective_name(way.kind), " of ", way.ranks, " ranks, ", way.shared, " ", way.count);
    CHECK(good.load(std::memory_order_relaxed) == way.ranks);
    CHECK(passed == way.places);
  }
}

TEST_CASE("a rank killed at any step of any operation is noticed within a second by every other" *
          doctest::skip(kThreadSanitized)) {
  for (const Way& way : ways()) {
    for (const std::string& place : way.places) {
      doom = {place.c_str(), 1, SIGKILL, 1};
      failpoint_action.store(strike, std::memory_order_relaxed);
      const auto statuses = in_processes(way.ranks, [&](Group& group) {
        Code code = Code::kOk;
        Deadline begin = Clock::now();
        for (int i = 0; i < 8 && code == Code::kOk; ++i) {
          begin = Clock::now();
          code = run_one(group, way);
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
      INFO(collective_name(way.kind), " of ", way.ranks, " ranks, ", way.shared, " ", way.count, ": ", place);
      for (int rank = 0; rank < way.ranks; ++rank) {
        const int status = statuses[static_cast<size_t>(rank)];
        if (rank == 1) {
          CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        } else {
          CHECK(status == 0);
        }
      }
    }
  }
}

TEST_CASE("a rank that stops within an operation and goes on before the deadline changes no bit of the result" *
          doctest::skip(kThreadSanitized)) {
  struct Stop {
    const char* place;
    int ranks;
    bool shared;
  };
  constexpr int64_t kCount = 200001;
  for (const Stop& stop : {Stop{"within write", 2, true}, Stop{"after publish", 2, true}, Stop{"staged", 2, false},
                           Stop{"reduced", 3, false}}) {
    doom = {stop.place, 1, SIGSTOP, 1};
    failpoint_action.store(strike, std::memory_order_relaxed);
    bool stopped = false;
    const auto statuses = in_processes(
        stop.ranks,
        [&](Group& group) {
          const auto value = [](int rank, int64_t i) { return std::sqrt(static_cast<float>(i * 7 + rank * 131 + 1)); };
          for (int turn = 0; turn < 2; ++turn) {  // at some places, the rank stops in its second operation
            Memory memory(group, kCount * 4, stop.shared);
            auto* const x = memory.as<float>();
            for (int64_t i = 0; i < kCount; ++i) x[i] = value(group.rank(), i);
            const CommOperand all(x, kCount, 4);
            if (group.run(reduce_call(all, all, Element::kFloat32, Reduction::kSum)) != Code::kOk) return 40;
            for (int64_t i = 0; i < kCount; ++i) {
              float sum = value(0, i);
              for (int rank = 1; rank < group.size(); ++rank) sum += value(rank, i);
              if (std::memcmp(&sum, x + i, sizeof sum) != 0) return 41;
            }
          }
          return 0;
        },
        seconds(20),
        [&](const std::vector<pid_t>& children) {
          int status = 0;
          stopped = waitpid(children[1], &status, WUNTRACED) == children[1] && WIFSTOPPED(status);
          usleep(300'000);
          if (stopped) kill(children[1], SIGCONT);
        });
    failpoint_action.store(nullptr, std::memory_order_relaxed);
    INFO(stop.place);
    CHECK(stopped);
    for (const int status : statuses) CHECK(status == 0);
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
