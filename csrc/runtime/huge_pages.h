// Huge pages for memory that has been allocated before.
#pragma once

#include <cstddef>

#include "gradring/export.h"

namespace gradring {

inline constexpr size_t kHugePage = size_t{2} << 20;

// Collapses the whole huge pages in [address, address + bytes) (MADV_COLLAPSE, Linux 6.1), which works for shared memory
// even where the system's settings say never. False if the kernel refused: the memory is as good as before, only slower.
bool collapse_into_huge_pages(void* address, size_t bytes) noexcept;

// Asks for huge pages for the whole ones in [address, address + bytes), private memory that has not been touched yet. It is only advice.
void advise_huge_pages(void* address, size_t bytes) noexcept;

// Tries once, on memory of its own, whether the kernel collapses huge pages. Returns "collapsed" or the reason why it does
// not, which `gradring doctor` prints.
GRADRING_API const char* huge_page_support() noexcept;

}  // namespace gradring
