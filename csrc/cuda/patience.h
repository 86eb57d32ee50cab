// Waits of the host that never block in CUDA: they ask events, soon at first, and then with sleeps.
#pragma once

#include <string>

#include "cuda/stream.h"

namespace gradring::cuda {

// Returns when the event is done. Throws Error that names `who` if CUDA fails, or if the device does not answer for ten minutes.
void wait_for(const std::string& who, const Event& event);

}  // namespace gradring::cuda
