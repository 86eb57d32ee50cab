// Forked children of a rank, at moments when other threads of the parent hold locks: no child waits for a thread that it lacks.
//
// | variable | writer   | readers     | order            | why                               |
// |----------|----------|-------------|------------------|-----------------------------------|
// | over_    | the test | the threads | release, acquire | the threads end                   |
// | turns_   | a thread | the test    | relaxed          | the thread has begun its work     |
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "comm/testing.h"
#include "runtime/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// Does something again and again in another thread, which therefore often holds a lock when this process forks.
class Again {
 public:
  explicit Again(std::function<void()> body)
      : thread_([this, body = std::move(body)] {
          while (!over_.load(std::memory_order_acquire)) {
            body();
            turns_.fetch_add(1, std::memory_order_relaxed);
          }
        }) {
    while (turns_.load(std::memory_order_relaxed) == 0) usleep(100);
  }
  ~Again() {
    over_.store(true, std::memory_order_release);
    thread_.join();
  }
  Again(const Again&) = delete;
  Again& operator=(const Again&) = delete;

 private:
  std::atomic<bool> over_{false};
  std::atomic<int> turns_{0};
  std::thread thread_;
};

// What a child does with its copies of a rank's objects: it frees an array, is refused, asks, closes and drops.
int use_copies(std::vector<std::shared_ptr<Group>>& groups, void* array) {
  alarm(20);
  Group& group = *groups[0];
  group.segments()->own.free(array);
  group.segments()->detach();
  if (!group.forked() || group.run(barrier_call()) != Code::kUnavailable) return 1;
  if (group.message(Code::kUnavailable, barrier_call()).find("forked") == std::string::npos) return 2;
  group.set_activity(Activity::kSaving, seconds(1));
  group.close();
  groups.clear();
  return 0;
}

}  // namespace

TEST_CASE("a forked child ends although threads that it lacks held locks, or waited" *
          doctest::skip(kThreadSanitized)) {
  auto groups = Group::of_threads(1, seconds(20));
  Group& group = *groups[0];
  void* const array = group.allocate(1000);
  // From now on the communicator's thread waits for further operations.
  CHECK(group.submit(barrier_call())->wait(kNoDeadline, nullptr));
  const auto fork_often = [&] {
    for (int turn = 0; turn < 20; ++turn) REQUIRE(exit_of_child([&] { return use_copies(groups, array); }) == 0);
  };
  SUBCASE("none") { fork_often(); }
  SUBCASE("the lock of the segment") {
    const Again again([&] { group.segments()->own.free(group.allocate(5000)); });
    fork_often();
  }
  SUBCASE("the lock of the rank's segments") {
    const Again again([&] { group.segments()->free_unused_words(); });
    fork_often();
  }
  SUBCASE("the lock of the queue, and that of operations") {
    const Again again([&] { group.submit(barrier_call())->wait(kNoDeadline, nullptr); });
    fork_often();
  }
  SUBCASE("the lock of the thread that uses the rank") {
    const Again again([&] { group.run(barrier_call()); });
    fork_often();
  }
  SUBCASE("the list of the rank's groups") {
    if (kSanitized) return;  // see kSanitized: both threads free much memory
    const Again again([&] {
      Code code = Code::kOk;
      REQUIRE(group.split(0, 0, nullptr, &code) != nullptr);
    });
    fork_often();
  }
  group.segments()->own.free(array);
  CHECK(group.run(barrier_call()) == Code::kOk);
}

TEST_CASE("a forked child ends although groups of its parent begin, send and fail" * doctest::skip(kSanitized)) {
  // Each pair sends one staged message, for which it allocates memory. Then one rank closes, and the other rank's operation fails.
  constexpr size_t kPairs = 40;
  std::vector<std::vector<std::shared_ptr<Group>>> pairs;
  for (size_t i = 0; i < kPairs; ++i) pairs.push_back(Group::of_threads(2, seconds(20)));
  std::vector<float> sent(50'000, 1), received(50'000);
  size_t next = 0;
  {
    const Again again([&] {
      if (next == kPairs) {
        usleep(1000);
        return;
      }
      auto& pair = pairs[next++];
      const auto elements = static_cast<int64_t>(sent.size());
      Call send = call_of(Collective::kSend, CommOperand(sent.data(), elements, 4), {}, Element::kFloat32);
      Call receive = call_of(Collective::kReceive, {}, CommOperand(received.data(), elements, 4), Element::kFloat32);
      send.peer = 1;
      const auto coming = pair[1]->submit(receive);
      CHECK(pair[0]->run(send) == Code::kOk);
      CHECK(coming->wait(kNoDeadline, nullptr));
      pair[1]->close();
      CHECK(pair[0]->run(barrier_call()) == Code::kPeerDied);
    });
    for (int turn = 0; turn < 20; ++turn) {
      CHECK(exit_of_child([&] {
              alarm(20);
              pairs.clear();
              return 0;
            }) == 0);
    }
  }
  CHECK(received == sent);
}

TEST_CASE("a forked child ends although its parent waits in an operation" * doctest::skip(kThreadSanitized)) {
  auto groups = Group::of_threads(2, seconds(20));
  void* const array = groups[0]->allocate(1000);
  std::thread waiting([&] { CHECK(groups[0]->run(barrier_call()) == Code::kOk); });
  usleep(50000);  // until the thread sleeps in the operation
  CHECK(exit_of_child([&] { return use_copies(groups, array); }) == 0);
  CHECK(groups[1]->run(barrier_call()) == Code::kOk);
  waiting.join();
}
