// Memory of allocations: inaccessible pages before and after, and canaries (with AddressSanitizer, poison) in the rest
// of the last page.
#pragma once

#include "cuda/software/state.h"

namespace gradring::software {

// Returns null, and sets the last error, if the memory does not suffice. Device memory is a memfd, so that other
// processes can map it.
void* map_allocation(size_t bytes, Allocation::Kind kind, int device, bool stream_ordered);
// Reports writes beyond the end. The address is not used again.
void unmap_allocation(uintptr_t base);
void* map_shared(int memfd, size_t bytes, size_t mapped);

}  // namespace gradring::software
