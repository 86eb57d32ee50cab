// Puts every op's CUDA kernels into their slots. _cuda calls it when it is loaded.
#pragma once

namespace gradring {

void register_all_cuda_kernels();

}  // namespace gradring
