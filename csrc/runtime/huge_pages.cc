#include "runtime/huge_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace gradring {

void advise_huge_pages(void* address, size_t bytes) noexcept {
  const auto begin = (reinterpret_cast<uintptr_t>(address) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end = (reinterpret_cast<uintptr_t>(address) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

bool collapse_into_huge_pages(void* address, size_t bytes) noexcept {
  const auto begin = (reinterpret_cast<uintptr_t>(address) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end = (reinterpret_cast<uintptr_t>(address) + bytes) / kHugePage * kHugePage;
  if (begin >= end) return false;
  auto* const from = reinterpret_cast<void*>(begin);
  madvise(from, end - begin, MADV_HUGEPAGE);  // only advice, for pages not yet touched: the kernel may ignore it
  return madvise(from, end - begin, MADV_COLLAPSE) == 0;
}

const char* huge_page_support() noexcept {
  const int fd = memfd_create("gradring", MFD_CLOEXEC);
  if (fd < 0) return "no shared memory";
  const char* support = "no shared memory";
  void* const space = mmap(nullptr, 2 * kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space != MAP_FAILED && fallocate(fd, 0, 0, kHugePage) == 0) {
    const auto at = (reinterpret_cast<uintptr_t>(space) + kHugePage - 1) / kHugePage * kHugePage;
    void* const map =
        mmap(reinterpret_cast<void*>(at), kHugePage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (map != MAP_FAILED) {
      *static_cast<volatile char*>(map) = 1;
      errno = 0;
      support = collapse_into_huge_pages(map, kHugePage) ? "collapsed"
                : errno == EINVAL                        ? "this kernel cannot collapse pages"
                                                         : "no huge page is free";
    }
  }
  if (space != MAP_FAILED) munmap(space, 2 * kHugePage);
  close(fd);
  return support;
}

}  // namespace gradring
