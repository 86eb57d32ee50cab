// Tests questions for a rank's stack: asked before the deadline, answered or not, not needed any more, and read while
// the answer changes.
//
// | variable         | writer                 | readers | order            | why                                      |
// |------------------|------------------------|---------|------------------|------------------------------------------|
// | a test's asked   | the thread that tells  | a test  | release, acquire | the time of the question comes before it |
// | a test's done    | the thread that asks   | readers | relaxed          | a hint to end                            |
#include "comm/stack_teller.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "comm/testing.h"

using namespace gradring;
using namespace gradring::testing;

TEST_CASE("a rank is asked for its stack ahead of the deadline, and the error has it at the deadline") {
  constexpr milliseconds kTimeout{1200};
  auto groups = Group::of_threads(2, kTimeout);
  std::atomic<int64_t> asked{0};
  std::thread teller([&asked, own = groups[1]->stack_teller()] {
    while (own->await_question()) {
      asked.store(monotonic_ns(), std::memory_order_release);
      own->answer("in some function");
    }
  });
  const Deadline begin = Clock::now();
  const Call barrier = barrier_call();
  CHECK(groups[0]->run(barrier) == Code::kPeerStalled);
  const auto took = Clock::now() - begin;
  CHECK(took >= kTimeout);
  CHECK(took < promised(kTimeout + seconds(1)));
  CHECK(asked.load(std::memory_order_acquire) < (begin + promised(kTimeout)).time_since_epoch().count());
  CHECK(groups[0]->message(Code::kPeerStalled, barrier).find("in some function") != std::string::npos);
  groups[1]->close();
  teller.join();
}

TEST_CASE("a rank that was asked in vain comes in time, and its next stall shows no old stack") {
  constexpr milliseconds kTimeout{2000};
  auto groups = Group::of_threads(2, kTimeout);
  const Call barrier = barrier_call();
  Code second = Code::kInternal;
  bool told_in_vain = false;
  std::thread other([&] {
    const auto teller = groups[1]->stack_teller();
    told_in_vain = teller->await_question();
    teller->answer("where it was at first");
    second = groups[1]->run(barrier);
    if (teller->await_question()) (void)teller->await_question();  // it gets the next question, and does not answer
  });
  CHECK(groups[0]->run(barrier) == Code::kOk);
  const Deadline begin = Clock::now();
  CHECK(groups[0]->run(barrier) == Code::kPeerStalled);
  CHECK(Clock::now() - begin < promised(kTimeout + seconds(1)));
  const std::string message = groups[0]->message(Code::kPeerStalled, barrier);
  CHECK(message.find("rank 1 did not come") != std::string::npos);
  CHECK(message.find("where it was at first") == std::string::npos);
  groups[1]->close();
  other.join();
  CHECK(told_in_vain);
  CHECK(second == Code::kOk);
}

TEST_CASE("a note is read whole while it is written anew") {
  const int fd = ControlBlock::create(2, 0);
  const auto control = ControlBlock::attach(fd, 2, 0);
  close(fd);
  std::atomic<bool> done{false};
  std::thread teller([own = StackTeller(control, 1)]() mutable {
    std::string text;
    while (own.await_question()) {
      text.assign(1 + (text.size() + 997) % (2 * kNoteBytes), text.empty() || text[0] == 'b' ? 'a' : 'b');
      own.answer(text);
    }
  });
  std::thread reader([&] {
    int torn = 0;
    while (!done.load(std::memory_order_relaxed)) {
      const std::string note = told_stack(*control, 1);
      torn += std::all_of(note.begin(), note.end(), [&](char c) { return c == note[0]; }) ? 0 : 1;
    }
    CHECK(torn == 0);
  });
  StackQuestion question;
  int answers = 0;
  for (int i = 0; i < 2000; ++i) {
    question.ask(*control, 1);
    answers += question.answered(*control, 1);
  }
  CHECK(answers > 1000);
  done.store(true, std::memory_order_relaxed);
  control->state(1).questions.fetch_or(kTellsNoMore, std::memory_order_acq_rel);
  futex_wake_all(control->state(1).questions, Scope::kProcesses);
  question.ask(*control, 1);
  CHECK_FALSE(question.answered(*control, 1));  // a rank that has closed its communicator is not asked
  teller.join();
  reader.join();
}

TEST_CASE("a rank that tells no stack is not asked") {
  const int fd = ControlBlock::create(1, 0);
  const auto control = ControlBlock::attach(fd, 1, 0);
  close(fd);
  StackQuestion question;
  question.ask(*control, 0);
  CHECK_FALSE(question.answered(*control, 0));
  CHECK(told_stack(*control, 0).empty());
}
