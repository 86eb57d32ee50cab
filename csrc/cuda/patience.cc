#include "cuda/patience.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "cuda/failure.h"
#include "runtime/status.h"
#include "runtime/trace.h"
#include "runtime/wait.h"

namespace gradring::cuda {

void wait_for(const std::string& who, const Event& event) {
  const TraceSpan span("wait for the device");
  constexpr auto kPatience = std::chrono::minutes(10);  // a device that does not answer for so long never will
  const Deadline deadline = deadline_in(kPatience);
  for (int tries = 0;; ++tries) {
    int code = 0;
    if (is_done(event, &code)) return;
    if (code != 0) throw_failure(who, code);
    if (tries < 32) {
      sched_yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(std::min(20 * (tries - 31), 500)));
    }
    if (Clock::now() > deadline) {
      throw Error(Code::kTimeout, "[" + who + "] the CUDA device has not answered for ten minutes");
    }
  }
}

}  // namespace gradring::cuda
