// Tells the sanitizers about GPU threads and orders. This folder itself is compiled without ThreadSanitizer, which
// therefore sees GPU threads and queued operations as in CUDA, and only those orders that are announced here.
#pragma once

#include <cstddef>

#if defined(GRADRING_SOFTWARE_TSAN)
#include <sys/single_threaded.h>

extern "C" {
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif
#if defined(GRADRING_SOFTWARE_ASAN)
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
void __asan_poison_memory_region(const volatile void* address, size_t size);
void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}
#endif

#define GRADRING_UNSANITIZED __attribute__((no_sanitize("thread"), no_sanitize("address"), no_sanitize("undefined")))

namespace gradring::software {

#if defined(GRADRING_SOFTWARE_TSAN)
inline constexpr bool kThreadSanitizer = true;
inline void* current_identity() { return __tsan_get_current_fiber(); }
// The new identity is ordered after everything that its maker has done. It is a thread only to ThreadSanitizer: told that the
// process had one thread, libstdc++ would count references without atomics, which then look like races.
inline void* new_identity() {
  __libc_single_threaded = 0;
  return __tsan_create_fiber(0);
}
// Keep the last thousand identities: ThreadSanitizer reuses the number of a destroyed one, and would then treat the two as
// one thread, whose accesses cannot race.
inline void* kept_identities[1024] = {};
inline unsigned next_kept = 0;
inline void destroy_identity(void* identity) {
  if (!identity) return;
  void*& place = kept_identities[next_kept++ % 1024];
  if (place) __tsan_destroy_fiber(place);
  place = identity;
}
inline void destroy_kept_identities() {
  for (void*& each : kept_identities) {
    if (each) __tsan_destroy_fiber(each);
    each = nullptr;
  }
}
// 1: The flag 1 means: switch without announcing an order.
inline void take_identity(void* identity) { __tsan_switch_to_fiber(identity, 1); }
inline void announce_after(void* point) { __tsan_acquire(point); }
inline void announce_before(void* point) { __tsan_release(point); }
inline void begin_unseen() {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
inline void end_unseen() {
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#else
inline constexpr bool kThreadSanitizer = false;
inline void* current_identity() { return nullptr; }
inline void* new_identity() { return nullptr; }
inline void destroy_identity(void*) {}
inline void destroy_kept_identities() {}
inline void take_identity(void*) {}
inline void announce_after(void*) {}
inline void announce_before(void*) {}
inline void begin_unseen() {}
inline void end_unseen() {}
#endif

// While this exists, the race detector ignores what the runtime does on a GPU thread's stack and under its identity.
struct Unseen {
  Unseen() { begin_unseen(); }
  ~Unseen() { end_unseen(); }
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
};

#if defined(GRADRING_SOFTWARE_ASAN)
inline constexpr bool kAddressSanitizer = true;
inline void forbid_bytes(const void* from, size_t size) { __asan_poison_memory_region(from, size); }
inline void allow_bytes(const void* from, size_t size) { __asan_unpoison_memory_region(from, size); }
#else
inline constexpr bool kAddressSanitizer = false;
inline void forbid_bytes(const void*, size_t) {}
inline void allow_bytes(const void*, size_t) {}
#endif

}  // namespace gradring::software
