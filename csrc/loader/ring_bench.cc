// Compares the ring with other ways to hand slots from producers to one consumer. Build the target ring_bench, and run it on an
// idle machine. Each peer is a pair of queues of slot numbers, one for full slots and one for free slots. Peers that are not
// installed (Debian: libconcurrentqueue-dev, libreaderwriterqueue-dev) are left out. With two producers, only the ring and the
// mutex deliver in the order of the tickets.
//
//   ring_bench [rounds]     prints medians of wall and CPU nanoseconds per slot, and their spread, over interleaved rounds
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "loader/ring_bench_peers.h"
#include "runtime/clock.h"

namespace gradring {

namespace {

constexpr uint32_t kSlots = 16;

struct Case {
  const char* name;
  int producers;
  size_t bytes;   // the size of a slot, all of which is written and read
  int64_t slots;  // how many slots are handed over per round
  int64_t pause;  // nanoseconds between two slots, so that the consumer sleeps
};

constexpr Case kCases[] = {
    {"1 producer, 64 B", 1, 64, 400'000, 0},
    {"2 producers, 64 B", 2, 64, 400'000, 0},
    {"2 producers, 64 KiB", 2, 65536, 20'000, 0},
    {"1 producer, 64 B, each 200 us: wake-up", 1, 64, 2'000, 200'000},
};

double cpu_nanoseconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& t) { return 1e9 * static_cast<double>(t.tv_sec) + 1e3 * t.tv_usec; };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

struct Result {
  double wall = 0, cpu = 0;
};

// Measures the wall time per slot; in a case with pauses, the time from "filled" to "taken".
template <class Queue>
Result measure(const Case& c) {
  Queue queue(kSlots);
  std::vector<std::byte> memory(kSlots * c.bytes);
  const auto slot = [&](uint32_t number) { return memory.data() + number * c.bytes; };
  const double cpu = cpu_nanoseconds();
  const int64_t begin = monotonic_ns();
  std::vector<std::thread> producers;
  for (int p = 0; p < c.producers; ++p) {
    producers.emplace_back([&] {
      for (int64_t i = 0; i < c.slots / c.producers; ++i) {
        if (c.pause) std::this_thread::sleep_for(std::chrono::nanoseconds(c.pause));
        queue.fill([&](uint32_t number) {
          std::memset(slot(number), static_cast<int>(i), c.bytes);
          const int64_t filled = monotonic_ns();
          std::memcpy(slot(number), &filled, sizeof filled);
        });
      }
    });
  }
  uint64_t sum = 0;
  std::vector<double> delays;
  for (int64_t i = 0; i < c.slots / c.producers * c.producers; ++i) {
    queue.take([&](uint32_t number) {
      int64_t filled = 0;
      std::memcpy(&filled, slot(number), sizeof filled);
      if (c.pause) delays.push_back(static_cast<double>(monotonic_ns() - filled));
      for (size_t at = 0; at < c.bytes; at += sizeof sum) {
        uint64_t word = 0;
        std::memcpy(&word, slot(number) + at, sizeof word);
        sum += word;
      }
    });
  }
  for (std::thread& thread : producers) thread.join();
  if (sum == 42) std::puts("");  // uses the sum, so that the compiler keeps the reads
  const auto slots = static_cast<double>(c.slots);
  Result result{static_cast<double>(monotonic_ns() - begin) / slots, (cpu_nanoseconds() - cpu) / slots};
  if (!delays.empty()) {
    std::sort(delays.begin(), delays.end());
    result.wall = delays[delays.size() / 2];
  }
  return result;
}

struct Contender {
  const char* name;
  int most_producers;
  Result (*run)(const Case&);
};

const Contender kContenders[] = {
    {"gradring::Ring", 99, &measure<RingOfSlots>},
    {"bounded MPMC, spinning (as rigtorp's)", 99, &measure<SpinningMpmc>},
    {"mutex and condition variables", 99, &measure<MutexQueue>},
#ifdef GRADRING_HAS_CONCURRENT_QUEUE
    {"moodycamel::BlockingConcurrentQueue", 99, &measure<MoodycamelMpmc>},
#endif
#ifdef GRADRING_HAS_READER_WRITER_QUEUE
    {"moodycamel::BlockingReaderWriterCircularBuffer", 1, &measure<MoodycamelSpsc>},
#endif
};

void all(int rounds) {
  for (const Case& c : kCases) {
    std::printf("%s (%s)\n", c.name, c.pause ? "ns from filled to taken" : "ns per slot");
    std::vector<std::vector<Result>> results(std::size(kContenders));
    for (int round = 0; round < rounds; ++round) {
      for (size_t i = 0; i < std::size(kContenders); ++i) {
        const size_t turn = round % 2 ? std::size(kContenders) - 1 - i : i;
        if (c.producers <= kContenders[turn].most_producers) results[turn].push_back(kContenders[turn].run(c));
      }
    }
    for (size_t i = 0; i < std::size(kContenders); ++i) {
      std::vector<Result>& all = results[i];
      if (all.empty()) continue;
      const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
      std::nth_element(all.begin(), middle, all.end(), [](auto& a, auto& b) { return a.cpu < b.cpu; });
      const double cpu = middle->cpu;
      std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.wall < b.wall; });
      std::printf("  %-48s %9.0f  (%.0f to %.0f)  CPU %9.0f\n", kContenders[i].name, all[all.size() / 2].wall,
                  all.front().wall, all.back().wall, cpu);
    }
  }
}

}  // namespace

}  // namespace gradring

int main(int count, char** values) {
#ifndef __OPTIMIZE__
  std::fputs("ring_bench: a debug build is not measured\n", stderr);
  return 1;
#endif
  gradring::all(count > 1 ? std::max(1, std::atoi(values[1])) : 7);
}
