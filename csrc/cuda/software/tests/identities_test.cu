// Tests that ThreadSanitizer sees GPU threads and host functions as CUDA has them, although threads take over identities of others.
#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "cuda/device.h"
#include "cuda/software/sanitizers.h"
#include "cuda/software/tests/apart.h"
#include "cuda/software/tests/plants.h"

using namespace gradring::software;

namespace {

using namespace gradring::device;

constexpr int kCount = 64, kBytes = kCount * 4;

__global__ void set(int* to, int value) { to[thread_in_grid()] = value; }
__global__ void set_one(int* to) { *to = static_cast<int>(blockIdx.x); }
__global__ void add(const int* from, int* to) { to[thread_in_grid()] += from[thread_in_grid()]; }

enum class Reads {
  kFirst,            // stream b reads what the first kernel of stream a has written, and waits for it
  kFirstTooEarly,    // it does not wait
  kSecondTooEarly,   // it waits for the first kernel, and reads what the second one writes
  kSecondUnordered,  // as before; its own kernels come before the second one of a is queued
};

// Two kernels on stream a, of which the second has the identities of the first, unless stream b takes them.
int two_streams(Reads reads) {
  const int64_t before = identities_taken_over;
  cudaStream_t a = nullptr, b = nullptr;
  cudaEvent_t first = nullptr;
  int* memory = nullptr;
  OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
  OK(cudaEventCreateWithFlags(&first, cudaEventDisableTiming));
  OK(cudaMalloc(reinterpret_cast<void**>(&memory), 3 * kBytes));
  OK(cudaMemset(memory, 0, 3 * kBytes));
  OK(cudaDeviceSynchronize());
  int *const x = memory, *const y = x + kCount, *const sum = y + kCount;
  OK(LAUNCH(set, dim3(2), dim3(32), 0, a, x, 1));
  OK(LAUNCH(set, dim3(2), dim3(32), 0, a, x, 2));
  OK(cudaEventRecord(first, a));
  const auto second = [&] { return LAUNCH(set, dim3(2), dim3(32), 0, a, y, 3); };
  if (reads != Reads::kSecondUnordered) OK(second());
  if (reads != Reads::kFirstTooEarly) OK(cudaStreamWaitEvent(b, first, 0));
  const bool of_second = reads == Reads::kSecondTooEarly || reads == Reads::kSecondUnordered;
  for (int i = 0; i < 2; ++i) OK(LAUNCH(add, dim3(2), dim3(32), 0, b, of_second ? y : x, sum));
  if (reads == Reads::kSecondUnordered) OK(second());
  OK(cudaDeviceSynchronize());
  int got[kCount];
  OK(cudaMemcpy(got, sum, kBytes, cudaMemcpyDeviceToHost));
  OK(cudaEventDestroy(first));
  OK(cudaStreamDestroy(a));
  OK(cudaStreamDestroy(b));
  OK(cudaFree(memory));
  if (kThreadSanitizer && identities_taken_over - before < kCount) return 3;
  return reads == Reads::kFirst && got[5] != 4 ? 2 : 0;
}

// Blocks of one thread that write one word, after a kernel whose identities they take over. A thread must not have the identity of
// one of its own grid that has ended.
int one_word() {
  const int64_t before = identities_taken_over;
  int* word = nullptr;
  OK(cudaMalloc(reinterpret_cast<void**>(&word), kBytes));
  OK(LAUNCH(set, dim3(2), dim3(32), 0, nullptr, word, 1));
  OK(LAUNCH(set_one, dim3(3), dim3(1), 0, nullptr, word));
  OK(cudaDeviceSynchronize());
  OK(cudaFree(word));
  return identities_taken_over - before < 3 ? 3 : 0;
}

bool race_in(const Outcome& outcome) {
  return outcome.status == kRaceReported && outcome.said.find("data race") != std::string::npos;
}

// Accesses to an array of the caller, through an address, so that ThreadSanitizer sees them.
[[gnu::noipa]] int fill(int* many, int count, int value) {
  for (int i = 0; i < count; ++i) many[i] = value + i;
  return many[value];
}
int use_stack(int value) {
  int many[4096];
  return fill(many, 4096, value);
}
void CUDART_CB on_host(void* data) { *static_cast<int*>(data) = use_stack(7); }

}  // namespace

TEST_CASE("threads that take over identities race as new ones do") {
  for (const Options& options : every_schedule(2)) {
    INFO(name(options));
    const Outcome clean = run_apart(options, [] { return two_streams(Reads::kFirst); });
    INFO(clean.said);
    CHECK(clean.status == 0);
    if (!kThreadSanitizer) continue;
    const Outcome blocks = run_apart(options, one_word);
    INFO(blocks.status, " ", blocks.said);
    CHECK(race_in(blocks));
    for (const Reads reads : {Reads::kFirstTooEarly, Reads::kSecondTooEarly, Reads::kSecondUnordered}) {
      const Outcome outcome = run_apart(options, [&] { return two_streams(reads); });
      INFO(static_cast<int>(reads), ": ", outcome.status, " ", outcome.said);
      CHECK(race_in(outcome));
    }
  }
}

TEST_CASE("races are found on a second device, whose threads take over those of the first one") {
  if (!kThreadSanitizer) return;
  using Program = int (*)(Plant);
  constexpr std::pair<Plant, Program> kRaces[] = {
      {kMissingBarrier, kernel_program},   {kRaceBetweenBlocks, kernel_program},
      {kRelaxedFlag, kernel_program},      {kSlotReusedTooEarly, feed_program},
      {kBranchesShareAWord, feed_program}, {kHostResultWithoutWait, memory_program},
  };
  const std::vector<Options> schedules = every_schedule(2);
  size_t turn = 0;
  for (const auto& [plant, program] : kRaces) {
    const Options& options = schedules[turn++ % schedules.size()];
    const Outcome outcome = run_apart(options, [&, bug = plant, run = program]() -> int {
      if (run(kNoPlant) != 0) return 2;
      restart(options);
      const int64_t before = identities_taken_over;
      const int status = run(bug);
      std::printf("%lld were taken over\n", static_cast<long long>(identities_taken_over - before));
      return status;
    });
    INFO(static_cast<int>(plant), ", ", name(options), ": ", outcome.status, " ", outcome.said);
    CHECK(race_in(outcome));
  }
}

TEST_CASE("races are found in a process that was forked from one with a device, and no others") {
  restart({});
  REQUIRE(kernel_program(kNoPlant) == 0);
  for (const auto program : {kernel_program, memory_program}) {
    const Outcome clean = run_apart({}, [&] { return program(kNoPlant); });
    INFO(clean.said);
    CHECK(clean.status == 0);
  }
  if (!kThreadSanitizer) return;
  const Outcome blocks = run_apart({}, [] { return kernel_program(kRaceBetweenBlocks); });
  INFO(blocks.said);
  CHECK(race_in(blocks));
  const Outcome host = run_apart({}, [] { return memory_program(kHostResultWithoutWait); });
  INFO(host.said);
  CHECK(race_in(host));
}

TEST_CASE("the variables of a host function do not lie where its caller has its own") {
  const Outcome outcome = run_apart({}, []() -> int {
    cudaStream_t stream = nullptr;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    int results[4] = {};
    int sum = 0;
    for (int& each : results) {
      OK(cudaLaunchHostFunc(stream, on_host, &each));  // in this schedule it runs at once
      sum += use_stack(9);
    }
    OK(cudaStreamSynchronize(stream));
    for (const int each : results) sum += each;
    OK(cudaStreamDestroy(stream));
    return sum == 4 * (18 + 14) ? 0 : 2;
  });
  INFO(outcome.said);
  CHECK(outcome.status == 0);
}
