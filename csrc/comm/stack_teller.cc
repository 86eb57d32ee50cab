#include "comm/stack_teller.h"

#include <cstring>
#include <utility>

#include "runtime/wait.h"

namespace gradring {

StackTeller::StackTeller(std::shared_ptr<ControlBlock> control, int rank) noexcept
    : control_(std::move(control)), rank_(rank) {
  // Becomes kReady, unless the communicator is closed already.
  auto never = static_cast<uint32_t>(Telling::kNever);
  control_->state(rank_).telling.compare_exchange_strong(never, static_cast<uint32_t>(Telling::kReady),
                                                         std::memory_order_acq_rel, std::memory_order_acquire);
}

bool StackTeller::await_question() noexcept {
  std::atomic<uint32_t>& telling = control_->state(rank_).telling;
  for (;;) {
    const uint32_t now = telling.load(std::memory_order_acquire);
    if (now != static_cast<uint32_t>(Telling::kReady)) return now == static_cast<uint32_t>(Telling::kAsked);
    futex_wait(telling, now, kNoDeadline, Scope::kProcesses);
  }
}

void StackTeller::answer(std::string_view text) noexcept {
  if (text.size() >= kNoteBytes) text.remove_prefix(text.size() - (kNoteBytes - 1));
  char* const note = control_->note(rank_);
  std::memcpy(note, text.data(), text.size());
  note[text.size()] = 0;
  std::atomic<uint32_t>& told = control_->state(rank_).told;
  told.store(1, std::memory_order_release);
  futex_wake_all(told, Scope::kProcesses);
}

}  // namespace gradring
