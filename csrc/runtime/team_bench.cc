// Measures what forks, joins and barriers of a team cost, alone and beside busy threads. Build the target runtime_bench, and run
// it on an idle machine.
//
//   runtime_bench [lanes]     medians over repetitions, in nanoseconds
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime/clock.h"
#include "runtime/cpu.h"
#include "runtime/team.h"

namespace {

using gradring::Lane;
using gradring::monotonic_ns;
using gradring::Team;

void work_for(int64_t nanoseconds) {
  for (const int64_t end = monotonic_ns() + nanoseconds; monotonic_ns() < end;) {
  }
}

template <class Body>
void report(const char* what, int64_t per_call, Body&& body) {
  std::vector<double> times;
  for (int repetition = 0; repetition < 21; ++repetition) {
    const int64_t begin = monotonic_ns();
    body();
    times.push_back(static_cast<double>(monotonic_ns() - begin) / static_cast<double>(per_call));
  }
  std::sort(times.begin(), times.end());
  std::printf("  %-44s %9.0f  (%.0f to %.0f)\n", what, times[10], times[2], times[18]);
}

void all(int lanes) {
  Team team(lanes);
  team.run(lanes, [](const Lane&) {});
  report("fork and join", 2000, [&] {
    for (int i = 0; i < 2000; ++i) team.run(lanes, [](const Lane&) {});
  });
  report("barrier", 5000, [&] {
    team.run(lanes, [](const Lane& lane) {
      for (int i = 0; i < 5000; ++i) lane.barrier();
    });
  });
  report("barrier after 2 us of work, less the work", 500, [&] {
    team.run(lanes, [](const Lane& lane) {
      for (int i = 0; i < 500; ++i) {
        work_for(2000);
        lane.barrier();
      }
    });
  });
  report("fork and join 10 us of work after a 20 us gap", 200, [&] {
    for (int i = 0; i < 200; ++i) {
      work_for(20000);
      team.run(lanes, [](const Lane&) { work_for(10000); });
    }
  });
  report("fork and join 10 us of work after a 200 us gap", 100, [&] {
    for (int i = 0; i < 100; ++i) {
      work_for(200000);
      team.run(lanes, [](const Lane&) { work_for(10000); });
    }
  });
}

}  // namespace

int main(int count, char** arguments) {
  const int lanes = count > 1 ? std::atoi(arguments[1]) : gradring::usable_cores();
  std::printf("%d lanes, %d cores\n", lanes, gradring::usable_cores());
  for (int neighbours : {0, 1, 2}) {
    std::vector<pid_t> children;
    for (int i = 0; i < neighbours; ++i) {
      children.push_back(fork());
      if (children.back() == 0) {
        for (;;) work_for(1000000);
      }
    }
    std::printf("%d busy neighbours\n", neighbours);
    all(lanes);
    for (pid_t child : children) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }
}
