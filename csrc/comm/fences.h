// Memory barriers between plain accesses and words that other threads look at.
//
// | variable | writer        | readers | order   | why                                                               |
// |----------|---------------|---------|---------|-------------------------------------------------------------------|
// | barrier  | full_barrier  | none    | seq_cst | of ThreadSanitizer's builds alone, whose compilers know no fence  |
#pragma once

#include <atomic>

namespace gradring {

// Stores before it are visible to all threads before loads after it take place.
inline void full_barrier() noexcept {
#if defined(__SANITIZE_THREAD__)
  static std::atomic<int> barrier{0};
  barrier.fetch_add(0, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// Loads before it take place before loads after it.
inline void load_barrier() noexcept {
#if defined(__SANITIZE_THREAD__)
  full_barrier();
#else
  std::atomic_thread_fence(std::memory_order_acquire);
#endif
}

}  // namespace gradring
