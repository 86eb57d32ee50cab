#include "cuda/software/tests/apart.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace gradring::software {

namespace {

Outcome in_child(const std::function<int()>& program) {
  forget_identities();
  int channel[2];
  if (pipe(channel) != 0) std::abort();
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(channel[1], 1);
    dup2(channel[1], 2);
    close(channel[0]);
    const int status = program();
    std::fflush(nullptr);
    _exit(status);
  }
  close(channel[1]);
  Outcome outcome;
  char text[4096];
  for (ssize_t size; (size = read(channel[0], text, sizeof text)) > 0;)
    outcome.said.append(text, static_cast<size_t>(size));
  close(channel[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

}  // namespace

Outcome run_apart(const Options& options, const std::function<int()>& program) {
  return in_child([&] {
    restart(options);
    const int status = program();
    const std::string left = leaks();
    if (status != 0 || left.empty()) return status;
    std::printf("leaked: %s\n", left.c_str());
    return 1;
  });
}

Outcome run_forked(const std::function<int()>& program) { return in_child(program); }

std::vector<Options> every_schedule(int seeds) {
  std::vector<Options> all(2 + static_cast<size_t>(seeds));
  all[1].schedule = Schedule::kLazy;
  all[1].order = BlockOrder::kReverse;
  for (size_t i = 2; i < all.size(); ++i) {
    all[i].schedule = Schedule::kSeeded;
    all[i].order = BlockOrder::kSeeded;
    all[i].seed = i - 1;
  }
  return all;
}

std::vector<Options> schedules_of(int turn) {
  std::vector<Options> all = every_schedule();
  if (turn == 0) return all;
  return {all[0], all[1], all[2 + static_cast<size_t>(turn - 1) % (all.size() - 2)]};
}

std::string name(const Options& options) {
  if (options.schedule == Schedule::kEager) return "eager";
  if (options.schedule == Schedule::kLazy) return "lazy";
  return "seed " + std::to_string(options.seed);
}

}  // namespace gradring::software

// ThreadSanitizer calls this: a race ends the process with a status of its own. A signal that ends a test, such as that of a time
// limit, is no race: what doctest does about it would be reported as one. A shorter history takes less memory for each GPU thread.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_options() {
  return "halt_on_error=1:exitcode=67:die_after_fork=0:report_signal_unsafe=0:history_size=1";
}
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "detect_leaks=0:exitcode=68";
}
