#include "comm/stack_teller.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace gradring {

namespace {

constexpr size_t kNoteWords = kNoteBytes / sizeof(uint64_t);
// A wait for an answer lasts at least this long after the question, even beyond the deadline. Most questions are asked earlier.
constexpr std::chrono::milliseconds kAnswer{150};

uint32_t number_of(uint32_t questions) noexcept { return questions / kOneQuestion; }

}  // namespace

StackTeller::StackTeller(std::shared_ptr<ControlBlock> control, int rank) noexcept
    : control_(std::move(control)), rank_(rank) {
  question_ = number_of(control_->state(rank_).questions.fetch_or(kTells, std::memory_order_acq_rel));
}

bool StackTeller::await_question() noexcept {
  std::atomic<uint32_t>& questions = control_->state(rank_).questions;
  for (;;) {
    const uint32_t now = questions.load(std::memory_order_acquire);
    if (now & kTellsNoMore) return false;
    if (number_of(now) != question_) {
      question_ = number_of(now);
      return true;
    }
    futex_wait(questions, now, kNoDeadline, Scope::kProcesses);
  }
}

void StackTeller::answer(std::string_view text) noexcept {
  if (text.size() >= kNoteBytes) text.remove_prefix(text.size() - (kNoteBytes - 1));
  char padded[kNoteBytes] = {};
  std::memcpy(padded, text.data(), text.size());
  std::atomic<uint64_t>* const note = control_->note(rank_);
  std::atomic<uint32_t>& told = control_->state(rank_).told;
  told.store(told.load(std::memory_order_relaxed) | 1, std::memory_order_relaxed);
  for (size_t i = 0; i < kNoteWords; ++i) {
    uint64_t word;
    std::memcpy(&word, padded + i * sizeof word, sizeof word);
    note[i].store(word, std::memory_order_release);
  }
  told.store(question_ * 2, std::memory_order_release);
  futex_wake_all(told, Scope::kProcesses);
}

void StackQuestion::ask(ControlBlock& control, int rank) noexcept {
  std::atomic<uint32_t>& questions = control.state(rank).questions;
  asked_ = (questions.load(std::memory_order_acquire) & (kTells | kTellsNoMore)) == kTells;
  if (!asked_) return;
  number_ = number_of(questions.fetch_add(kOneQuestion, std::memory_order_acq_rel) + kOneQuestion);
  asked_at_ = Clock::now();
  futex_wake_all(questions, Scope::kProcesses);
}

bool StackQuestion::answered(ControlBlock& control, int rank) noexcept {
  if (!asked_) return false;
  std::atomic<uint32_t>& told = control.state(rank).told;
  for (;;) {
    const uint32_t now = told.load(std::memory_order_acquire);
    const bool newer = ((now / 2 - number_) & kQuestionMask) <= kQuestionMask / 2;
    if (newer && !(now & 1)) return true;
    if (!futex_wait(told, now, asked_at_ + kAnswer, Scope::kProcesses)) return false;
  }
}

std::string told_stack(ControlBlock& control, int rank) {
  const std::atomic<uint64_t>* const note = control.note(rank);
  std::atomic<uint32_t>& told = control.state(rank).told;
  for (int attempt = 0; attempt < 5; ++attempt) {
    const uint32_t before = told.load(std::memory_order_acquire);
    if (before & 1) {
      futex_wait(told, before, deadline_in(std::chrono::milliseconds(10)), Scope::kProcesses);
      continue;
    }
    char text[kNoteBytes];
    for (size_t i = 0; i < kNoteWords; ++i) {
      const uint64_t word = note[i].load(std::memory_order_acquire);
      std::memcpy(text + i * sizeof word, &word, sizeof word);
    }
    if (told.load(std::memory_order_relaxed) == before) return std::string(text, strnlen(text, sizeof text));
  }
  return {};
}

}  // namespace gradring
