#include "runtime/trace.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <thread>
#include <vector>

using gradring::Code;
using gradring::trace_record;
using gradring::trace_start;
using gradring::trace_stop;
using gradring::trace_write;
using gradring::TraceSpan;

namespace {

std::string written() {
  const std::string path = "/tmp/gradring-trace-" + std::to_string(getpid());
  REQUIRE(trace_write(path.c_str()).ok());
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  std::remove(path.c_str());
  return text;
}

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("a span is recorded while the trace is on, and only then") {
  { TraceSpan off("off"); }
  trace_start();
  {
    TraceSpan outer("outer", 42);
    TraceSpan inner("a \"quoted\\ name\n");
  }
  trace_record("exact", 1234567, 1236001);
  trace_stop();
  { TraceSpan late("late"); }
  const std::string text = written();
  CHECK(count(text, "\"off\"") == 0);
  CHECK(count(text, "\"late\"") == 0);
  CHECK(count(text, "\"outer\"") == 1);
  CHECK(count(text, "{\"number\":42}") == 1);
  CHECK(count(text, "a \\\"quoted\\\\ name\\u000a") == 1);
  CHECK(count(text, "\"ts\":1234.567,\"dur\":1.434") == 1);
  trace_start();
  trace_stop();
  CHECK(count(written(), "\"outer\"") == 0);
}

TEST_CASE("a row that is no thread's has its name, its spans and a number of its own, and outlives its object") {
  trace_start();
  trace_record("host", 1, 2);
  {
    gradring::TraceRow device("cuda:0"), other("a name of more than fifteen characters");
    device.record("kernel", 1000, 3000, 7);
    other.record("elsewhere", 1000, 3000);
  }
  const std::string text = written();
  CHECK(count(text, "{\"name\":\"cuda:0\",") == 1);
  CHECK(count(text, "{\"name\":\"a name of more \",") == 1);
  CHECK(count(text, "\"kernel\"") == 1);
  CHECK(count(text, "{\"number\":7}") == 1);
  std::set<std::string> rows;
  for (size_t at = text.find("\"ph\":\"X\""); at != std::string::npos; at = text.find("\"ph\":\"X\"", at + 1)) {
    const size_t begin = text.find("\"tid\":", at);
    rows.insert(text.substr(begin, text.find(',', begin) - begin));
  }
  CHECK(rows.size() == 3);
  trace_start();  // forgets the rows
  trace_stop();
  CHECK(count(written(), "cuda:0") == 0);
}

TEST_CASE("each thread has a lane, a full one counts what it drops, and threads may record during a write") {
  constexpr int kThreads = 4;
  constexpr int kSpans = 5000;
  constexpr size_t kKept = 3000;
  for (int session = 0; session < 3; ++session) {
    trace_start(kKept);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([] {
        for (int i = 0; i < kSpans; ++i) TraceSpan span("work", i);
      });
    }
    written();
    for (auto& thread : threads) thread.join();
    trace_stop();
    const std::string text = written();
    CHECK(count(text, "\"work\"") == kThreads * kKept);
    CHECK(count(text, "\"dropped\":2000") == kThreads);
    CHECK(count(text, "\"thread_name\"") == kThreads);
    for (int i : {0, 1023, 1024, 2999}) {
      CHECK(count(text, "{\"number\":" + std::to_string(i) + "}") == kThreads);
    }
  }
}

TEST_CASE("names made at run time are kept, and a bad path is an error") {
  std::string name = "made";
  const char* kept = gradring::trace_name(name);
  name = "gone";
  CHECK(std::string(kept) == "made");
  CHECK(gradring::trace_name("made") == kept);
  CHECK(trace_write("/no/such/folder/trace.json").code() == Code::kIo);
}
