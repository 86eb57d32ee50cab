// Mappings behind allocations: inaccessible pages before and after, canaries (and AddressSanitizer) in the last page's rest.
#pragma once

#include "cuda/software/state.h"

namespace gradring::software {

// Null, and an error noted, if it does not fit. Device memory lies in a memfd, so that other processes can map it.
void* map_allocation(size_t bytes, Allocation::Kind kind, int device, bool stream_ordered);
// Reports writes beyond the end. The address is not used again.
void unmap_allocation(uintptr_t base);
void* map_shared(int memfd, size_t bytes, size_t mapped);

}  // namespace gradring::software
