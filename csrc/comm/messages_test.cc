// Tests of messages between the ranks of a group: their staging memory, deadlines and errors.
//
// | variable  | writer   | readers    | order            | why                 |
// |-----------|----------|------------|------------------|---------------------|
// | over      | the test | the sender | release, acquire | the wait has ended  |
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <vector>

#include "comm/testing.h"
#include "runtime/testing.h"

using namespace gradring;
using namespace gradring::testing;

TEST_CASE("a group gives the staging memory of its messages back") {
  auto groups = Group::of_threads(2, seconds(20));
  std::vector<size_t> allocated;
  for (int turn = 0; turn < 3; ++turn) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, rank] {
        Code code = Code::kOk;
        const auto part = groups[rank]->split(0, 0, nullptr, &code);
        REQUIRE(part != nullptr);
        std::vector<float> x(50000);
        CHECK(part->run(message_to(part->rank() ^ 1, x.data(), 50000, rank == 0)) == Code::kOk);
        CHECK(part->run(message_to(part->rank() ^ 1, x.data(), 50000, rank == 1)) == Code::kOk);
        CHECK(part->run(barrier_call()) == Code::kOk);
      });
    }
    for (auto& thread : threads) thread.join();
    allocated.push_back(groups[1]->segments()->own.allocated());
  }
  CHECK(allocated[2] == allocated[0]);
}

TEST_CASE("a message that cannot begin keeps its deadline and its name while others go on") {
  auto groups = Group::of_threads(3, milliseconds(400));
  std::vector<float> x(3), y(3), z(3);
  std::atomic<bool> over{false};
  std::thread other([&] {
    while (!over.load(std::memory_order_acquire)) {
      if (groups[2]->run(message_to(0, z.data(), 3, true)) != Code::kOk) return;
      usleep(20000);
    }
  });
  groups[1]->set_activity(Activity::kComputing, milliseconds(1));
  const Deadline begin = Clock::now();
  const auto never = groups[0]->submit(message_to(1, x.data(), 3, false));
  std::vector<std::shared_ptr<Request>> messages;
  while (!never->done() && Clock::now() - begin < seconds(4)) {
    messages.push_back(groups[0]->submit(message_to(2, y.data(), 3, false)));
    if (!messages.back()->wait(deadline_in(seconds(4)), nullptr)) break;
  }
  over.store(true, std::memory_order_release);
  CHECK(never->done());
  CHECK(Clock::now() - begin < promised(seconds(1)));
  const GroupFault fault = groups[0]->fault();
  CHECK(fault.code == Code::kPeerStalled);
  CHECK(fault.failure.rank == 1);
  CHECK(fault.sequence == 1);
  CHECK(fault.kind == Collective::kReceive);
  groups[0]->close(std::chrono::nanoseconds(0));
  other.join();
}

TEST_CASE("the error of a mismatched message names its own receive, not one that was submitted later") {
  auto groups = Group::of_threads(3, seconds(20));
  std::vector<float> x(500), y(500);
  const auto first = groups[0]->submit(message_to(1, x.data(), 5, false));
  const auto second = groups[0]->submit(message_to(2, y.data(), 77, false));
  CHECK(groups[1]->run(message_to(0, x.data() + 100, 6, true)) == Code::kOk);  // so few bytes do not wait
  REQUIRE(first->wait(deadline_in(seconds(10)), nullptr));
  REQUIRE(second->wait(deadline_in(seconds(10)), nullptr));
  CHECK(first->code() == Code::kMismatch);
  const std::string text = groups[0]->message(first->code(), first->call());
  CHECK(text.find("rank 0 called recv(5 of float32)") != std::string::npos);
  CHECK(text.find("rank 1 called send(6 of float32)") != std::string::npos);
  CHECK(text.find("operation 1 of rank 0") != std::string::npos);
}
