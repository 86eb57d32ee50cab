// Kernels into which a test can plant bugs.
#include <cstdio>
#include <vector>

#include "cuda/device.h"
#include "cuda/software/tests/apart.h"
#include "cuda/software/tests/plants.h"

namespace gradring::software {

namespace {

using namespace gradring::device;

// Sums of rows, by vectors where they fit. Each block handles one row after another.
template <int P>
__global__ void row_sums(const float* x, float* sums, int rows, int columns) {
  SHARED_ARRAY(float, parts, kMostWarps);
  if constexpr (P == kTooMuchStaticShared) {
    SHARED_ARRAY(float, large, 13000);
    large[threadIdx.x] = 0;
  }
  if (P == kDynamicSharedNotAsked) {
    DYNAMIC_SHARED(float, more);
    more[threadIdx.x] = 0;
  }
  for (int row = static_cast<int>(blockIdx.x); row < rows; row += static_cast<int>(gridDim.x)) {
    const float* from = x + static_cast<int64_t>(row) * columns;
    const int head = P == kUnalignedVector ? 0 : static_cast<int>(elements_to_boundary(from, columns));
    const int round = P == kVectorLoadBeyondEnd && row == rows - 1 ? 3 : 0;
    const int vectors = (columns - head + round) / 4;
    float sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < head; i += static_cast<int>(blockDim.x)) sum += from[i];
    for (int k = static_cast<int>(threadIdx.x); k < vectors; k += static_cast<int>(blockDim.x)) {
      const Vector16<float> v = load16(from + head + 4 * k);
      for (float each : v.v) sum += each;
    }
    for (int i = head + 4 * vectors + static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) {
      sum += from[i];
    }
    if (P == kExitedLanesInMask && threadIdx.x == 40) return;
    if (P == kLaneOutsideItsMask) sum += __shfl_xor_sync(0xfffffffeu, sum, 0);
    if (P == kShuffleOutsideMask && threadIdx.x % 32 < 16) sum += __shfl_sync(0x0000ffffu, sum, 20);
    if (P == kTwoMasks) {
      const unsigned mask = threadIdx.x % 32 < 20 ? 0x000fffffu : 0xfffff000u;
      sum += 0 * __shfl_sync(mask, sum, 15);
    }
    sum = warp_reduce(sum, Plus{});
    if (lane_in_warp() == 0 && !(P == kStaleShared && threadIdx.x > 0)) parts[warp_in_block()] = sum;
    if (P == kExitBeforeBarrier && threadIdx.x == 64) return;
    if (P == kBarrierInHalfABlock) {
      if (threadIdx.x < 48) __syncthreads();
    } else if (P == kBarriersInTwoBranches) {
      if (threadIdx.x < 48) {
        __syncthreads();
      } else {
        __syncthreads();
      }
    } else if (P != kMissingBarrier) {
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      float total = 0;
      for (int warp = 0; warp < warps_in_block(); ++warp) total += parts[warp];
      sums[row] = total;
    }
    if (P != kMissingSecondBarrier) __syncthreads();
  }
}

// Each thread reads its neighbour's number from its warp's shared memory.
template <int P>
__global__ void rotate(const int* x, int* y, int n) {
  SHARED_ARRAY(int, values, 128);
  const int i = static_cast<int>(thread_in_grid());
  values[threadIdx.x] = i < n ? x[i] : 0;
  if (P != kMissingWarpBarrier) __syncwarp();
  const int neighbour = static_cast<int>((threadIdx.x & ~31u) + (threadIdx.x + 1) % 32);
  const int taken = values[neighbour];
  if (i < n || P == kStoreBeyondEnd) y[i] = taken;
}

// The smallest number of all, and how many blocks there are. The two lie in different 8-byte words: ThreadSanitizer remembers
// about four accesses of each.
template <int P>
__global__ void smallest(const int* x, int n, int* least, int* blocks) {
  for (int64_t i = thread_in_grid(); i < n; i += threads_in_grid()) {
    if (P == kPlainMinimum) {
      if (x[i] < *least) *least = x[i];
    } else {
      atomic_min<Order::kRelaxed>(least, x[i]);
    }
  }
  if (threadIdx.x == 0) {
    if (P == kRaceBetweenBlocks) {
      *blocks += 1;
    } else {
      atomic_add<Order::kRelaxed>(blocks, 1);
    }
  }
}

// Each block publishes a number, waits for all blocks, and reads the next block's number.
template <int P>
__global__ void pass_on(int* numbers, int* turns, int* taken) {
  const int me = static_cast<int>(blockIdx.x), all = static_cast<int>(gridDim.x);
  if (threadIdx.x == 0) {
    numbers[me] = 10 * me;
    if (P == kRelaxedFlag) {
      atomic_store<Order::kRelaxed>(&turns[me], 1);
    } else if (!(P == kFlagNeverSet && me == 1)) {
      atomic_store<Order::kRelease>(&turns[me], 1);
    }
    const int next = (me + 1) % all;
    while (P != kMissingGridWait && atomic_load<Order::kAcquire>(&turns[next]) == 0) wait_a_little();
    taken[me] = numbers[next];
  }
}

__global__ void store_vectors(float* y, int n, int beyond) {
  Vector16<float> v;
  for (float& each : v.v) each = 1;
  for (int k = 4 * static_cast<int>(threadIdx.x); k + 4 <= n + beyond; k += 4 * static_cast<int>(blockDim.x))
    store16(y + k, v);
}

template <int P>
int run() {
  constexpr int rows = 5, columns = 133, n = 200, blocks = 3;
  std::vector<float> x(rows * columns);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 100);
  std::vector<int> numbers(n);
  for (int i = 0; i < n; ++i) numbers[static_cast<size_t>(i)] = (i * 7919 + 5) % 1000 + 3;
  float *dx, *sums;
  int *dn, *rotated, *words;
  OK(cudaMalloc(reinterpret_cast<void**>(&dx), x.size() * 4));
  OK(cudaMalloc(reinterpret_cast<void**>(&sums), (rows + 2) * 4));
  OK(cudaMalloc(reinterpret_cast<void**>(&dn), n * 4));
  OK(cudaMalloc(reinterpret_cast<void**>(&rotated), n * 4));
  OK(cudaMalloc(reinterpret_cast<void**>(&words), 32 * 4));
  OK(cudaMemcpy(dx, x.data(), x.size() * 4, cudaMemcpyHostToDevice));
  OK(cudaMemcpy(dn, numbers.data(), n * 4, cudaMemcpyHostToDevice));
  OK(cudaMemset(words, 0, 32 * 4));
  const int start = 1 << 30;
  OK(cudaMemcpy(words, &start, 4, cudaMemcpyHostToDevice));
  OK(LAUNCH(row_sums<P>, dim3(2), dim3(P == kTooManyThreads ? 1056 : 96), P == kTooMuchShared ? 60000 : 0, nullptr, dx,
            sums, rows, columns));
  OK(LAUNCH(rotate<P>, dim3(2), dim3(128), 0, nullptr, dn, rotated, n));
  OK(LAUNCH(smallest<P>, dim3(3), dim3(64), 0, nullptr, dn, n, words, words + 2));
  OK(LAUNCH(pass_on<P>, dim3(blocks), dim3(32), 0, nullptr, words + 4, words + 12, words + 20));
  std::vector<float> got(rows);
  std::vector<int> turned(n), took(32);
  OK(cudaMemcpy(got.data(), sums, rows * 4, cudaMemcpyDeviceToHost));
  OK(cudaMemcpy(turned.data(), rotated, n * 4, cudaMemcpyDeviceToHost));
  OK(cudaMemcpy(took.data(), words, 32 * 4, cudaMemcpyDeviceToHost));
  OK(LAUNCH(store_vectors, dim3(1), dim3(32), 0, nullptr, sums, 4, P == kVectorBeyondEnd ? 4 : 0));
  OK(cudaDeviceSynchronize());
  for (void* each : {static_cast<void*>(dx), static_cast<void*>(sums), static_cast<void*>(dn),
                     static_cast<void*>(rotated), static_cast<void*>(words)})
    OK(cudaFree(each));
  bool right = true;
  for (int row = 0; row < rows; ++row) {
    float sum = 0;
    for (int j = 0; j < columns; ++j) sum += x[static_cast<size_t>(row * columns + j)];
    right &= got[static_cast<size_t>(row)] == sum;  // sums of whole numbers are exact
  }
  for (int i = 0; i < n; ++i) {
    const int from = (i & ~31) + (i + 1) % 32;
    right &= turned[static_cast<size_t>(i)] == (from < n ? numbers[static_cast<size_t>(from)] : 0);
  }
  int least = start;
  for (int each : numbers) least = each < least ? each : least;
  right &= took[0] == least && took[2] == 3;
  for (int block = 0; block < blocks; ++block)
    right &= took[static_cast<size_t>(20 + block)] == 10 * ((block + 1) % blocks);
  if (!right) std::printf("wrong results\n");
  return right ? 0 : 2;
}

template <int... P>
int choose(Plant plant, std::integer_sequence<int, P...>) {
  int status = -1;
  (void)((static_cast<int>(plant) == P && (status = run<P>(), true)) || ...);
  return status;
}

}  // namespace

int kernel_program(Plant plant) { return choose(plant, std::make_integer_sequence<int, kMissingGridWait + 1>()); }

}  // namespace gradring::software
