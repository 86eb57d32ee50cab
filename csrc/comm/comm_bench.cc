// comm_bench [RANKS] [ROUNDS] [private | BYTES warm | BYTES cold]: measures all_reduce of float32 between forked processes, each
// pinned to a core, at several sizes or at one, beside the bound that the machine's memory sets: p processes that each run
// s = x[i] + y[i]; x[i] = y[i] = s over private arrays of half the size.
//
// Each line has the bytes, "warm" (one array) or "cold" (128 MiB of arrays, which are all rewritten and then reduced one after
// another), and p10 / p50 / p90 of the slowest rank in microseconds. In cold rows, sweeps over the private arrays, which are rewritten
// in the same way, alternate with sweeps over the shared ones, and the line ends with their median. Inputs are rewritten
// before each use, outside the timed part; every result is checked. With "private", the arrays lie outside of all segments, and
// two ranks compare two ways call by call: staging, and reading from the other process by process_vm_readv. More ranks stage.
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "comm/testing.h"
#include "ops/combine/combine.h"
#include "runtime/arena.h"
#include "runtime/huge_pages.h"

using namespace gradring;

namespace {

// Memory that all ranks share. A barrier of the group lies between the writes and the reads.
struct Shared {
  double seconds[kMostRanks];
  pid_t pids[kMostRanks];
  void* arrays[kMostRanks];  // each rank's own address of its private array
};

double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

struct Rank {
  Group& group;
  Shared& shared;

  void together() {
    Call barrier;
    barrier.agreement.kind = Collective::kBarrier;
    if (group.run(barrier) != Code::kOk) std::_Exit(3);
  }

  // The slowest rank's time for one call. Every rank returns the same.
  template <class Body>
  double timed(Body&& body) {
    together();
    const double begin = now();
    body();
    shared.seconds[group.rank()] = now() - begin;
    together();
    double slowest = 0;
    for (int rank = 0; rank < group.size(); ++rank) slowest = std::max(slowest, shared.seconds[rank]);
    together();
    return slowest;
  }
};

double at(const std::vector<double>& sorted, double quantile) {
  return sorted[static_cast<size_t>(quantile * static_cast<double>(sorted.size() - 1) + 0.5)];
}

// Pairs of private arrays, on huge pages as the shared ones. One call over a pair loads and stores what a rank of an all_reduce
// does that shares the work evenly.
class PrivatePairs {
 public:
  PrivatePairs(size_t bytes, size_t pairs) : count_(static_cast<int64_t>(bytes / 8)) {
    for (size_t i = 0; i < 2 * pairs; ++i) {
      memory_.push_back(std::make_unique<AlignedArena>(bytes / 2));
      std::memset(memory_.back()->data(), 0, bytes / 2);
      collapse_into_huge_pages(memory_.back()->data(), bytes / 2);
    }
  }
  void rewrite() {
    for (auto& each : memory_) std::fill_n(reinterpret_cast<float*>(each->data()), count_, 1.0F);
  }
  void add(size_t pair) {
    void* const x = memory_[2 * pair]->data();
    void* const y = memory_[2 * pair + 1]->data();
    const void* in[] = {x, y};
    void* out[] = {x, y};
    find_combine(Element::kFloat32, Reduction::kSum)({2, 2, in, out, count_, 1});
  }

 private:
  int64_t count_;
  std::vector<std::unique_ptr<AlignedArena>> memory_;
};

void race(Rank& rank, size_t bytes, bool cold, int rounds) {
  Group& group = rank.group;
  const auto count = static_cast<int64_t>(bytes / 4);
  const size_t arrays = cold ? std::max<size_t>((size_t{128} << 20) / bytes, 2) : 1;
  std::vector<float*> xs;
  for (size_t i = 0; i < arrays; ++i) xs.push_back(static_cast<float*>(group.allocate(bytes)));
  PrivatePairs pairs(bytes, cold ? arrays : 0);
  std::vector<double> times, floors;
  // A small operation is shorter than a reading of the clock, so many in a row are timed. After the first one, all ranks have the
  // same numbers, and each further one multiplies them by the number of ranks, which must be a power of two: then every sum is
  // exact, as long as float32 can hold it.
  const int doublings = std::bit_width(static_cast<unsigned>(group.size() - 1));
  const int repeat = bytes <= 4096 ? 100 / std::max(doublings, 1) : 1;
  const auto value_of = [](int of, int turn) { return static_cast<float>(of + 1 + turn % 7); };
  const int sweeps = (rounds + static_cast<int>(arrays) - 1) / static_cast<int>(arrays);
  // The first sweep does not count: after it, every page exists and every rank has mapped it.
  for (int sweep = -1; sweep < sweeps; ++sweep) {
    const auto turn_of = [&](size_t k) { return (sweep + 1) * static_cast<int>(arrays) + static_cast<int>(k); };
    for (size_t k = 0; k < arrays; ++k) std::fill_n(xs[k], count, value_of(group.rank(), turn_of(k)));
    for (float* x : xs) {
      const CommOperand all(x, count, 4);
      const Call call = testing::reduce_call(all, all, Element::kFloat32, Reduction::kSum);
      const double seconds = rank.timed([&] {
        for (int i = 0; i < repeat; ++i)
          if (group.run(call) != Code::kOk) std::_Exit(4);
      });
      if (sweep >= 0) times.push_back(seconds / repeat);
    }
    for (size_t k = 0; k < arrays; ++k) {
      float expected = 0;
      for (int r = 0; r < group.size(); ++r) expected += value_of(r, turn_of(k));
      expected = std::ldexp(expected, doublings * (repeat - 1));
      if (std::any_of(xs[k], xs[k] + count, [=](float got) { return got != expected; })) {
        std::fprintf(stderr, "wrong result at %zu bytes\n", bytes);
        std::_Exit(5);
      }
    }
    if (!cold) continue;
    pairs.rewrite();
    for (size_t k = 0; k < arrays; ++k) {
      const double seconds = rank.timed([&] { pairs.add(k); });
      if (sweep >= 0) floors.push_back(seconds);
    }
  }
  for (float* x : xs) group.segments()->own.free(x);
  std::sort(times.begin(), times.end());
  std::sort(floors.begin(), floors.end());
  if (group.rank() != 0) return;
  std::printf("%10zu %s %10.2f %10.2f %10.2f us", bytes, cold ? "cold" : "warm", at(times, 0.1) * 1e6,
              at(times, 0.5) * 1e6, at(times, 0.9) * 1e6);
  if (cold) std::printf("  bound %10.2f us", at(floors, 0.5) * 1e6);
  std::printf("\n");
  std::fflush(stdout);
}

void barrier(Group& group) {
  Call call;
  call.agreement.kind = Collective::kBarrier;
  if (group.run(call) != Code::kOk) std::_Exit(3);
}

// Copies bytes of the other rank's private array, from `offset` on, to this process.
void read_peer(const Shared& shared, int peer, size_t offset, void* to, size_t bytes) {
  const iovec mine{to, bytes}, theirs{static_cast<char*>(shared.arrays[peer]) + offset, bytes};
  if (process_vm_readv(shared.pids[peer], &mine, 1, &theirs, 1, 0) != static_cast<ssize_t>(bytes)) {
    std::perror("process_vm_readv");
    std::_Exit(6);
  }
}

// Each of two ranks sums one half, in pieces that stay in its cache, and then reads the other half of the result.
void reduce_by_reading(Rank& rank, float* x, size_t bytes, char* piece) {
  constexpr size_t kPiece = size_t{256} << 10;
  const int peer = 1 - rank.group.rank();
  const size_t half = bytes / 2, own = rank.group.rank() == 0 ? 0 : half;
  barrier(rank.group);
  for (size_t at = own; at < own + half; at += kPiece) {
    const size_t size = std::min(kPiece, own + half - at);
    read_peer(rank.shared, peer, at, piece, size);
    auto* const here = reinterpret_cast<char*>(x) + at;
    const void* in[] = {peer == 0 ? piece : here, peer == 0 ? here : piece};
    void* out[] = {here};
    find_combine(Element::kFloat32, Reduction::kSum)({2, 1, in, out, static_cast<int64_t>(size / 4), 1});
  }
  barrier(rank.group);
  read_peer(rank.shared, peer, half - own, reinterpret_cast<char*>(x) + (half - own), half);
  barrier(rank.group);
}

void race_private(Rank& rank, size_t bytes, int rounds) {
  const auto count = static_cast<int64_t>(bytes / 4);
  AlignedArena memory(bytes), piece(size_t{256} << 10);
  collapse_into_huge_pages(memory.data(), bytes);
  auto* const x = reinterpret_cast<float*>(memory.data());
  rank.shared.pids[rank.group.rank()] = getpid();
  rank.shared.arrays[rank.group.rank()] = x;
  const CommOperand all(x, count, 4);
  const Call call = testing::reduce_call(all, all, Element::kFloat32, Reduction::kSum);
  std::vector<double> times[2];
  const int ranks = rank.group.size();
  for (int turn = 0; turn < 2 * rounds; ++turn) {
    const bool reading = ranks == 2 && turn % 2 != 0;
    std::fill(x, x + count, static_cast<float>(rank.group.rank() + turn % 7));
    const double seconds = rank.timed([&] {
      if (reading) {
        reduce_by_reading(rank, x, bytes, reinterpret_cast<char*>(piece.data()));
      } else if (rank.group.run(call) != Code::kOk) {
        std::_Exit(4);
      }
    });
    times[reading].push_back(seconds);
    const float expected = static_cast<float>(ranks * (ranks - 1) / 2 + ranks * (turn % 7));
    if (std::any_of(x, x + count, [=](float got) { return got != expected; })) std::_Exit(5);
  }
  rank.together();  // Without this barrier, a rank could free memory that the other still reads.
  for (auto& taken : times) std::sort(taken.begin(), taken.end());
  if (rank.group.rank() != 0) return;
  std::printf("%10zu private: staged %.2f / %.2f / %.2f us", bytes, at(times[0], 0.1) * 1e6, at(times[0], 0.5) * 1e6,
              at(times[0], 0.9) * 1e6);
  if (ranks == 2) {
    std::printf(", read from the other process %.2f / %.2f / %.2f us, ratio %.2f", at(times[1], 0.1) * 1e6,
                at(times[1], 0.5) * 1e6, at(times[1], 0.9) * 1e6, at(times[1], 0.5) / at(times[0], 0.5));
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 2, rounds = argc > 2 ? std::atoi(argv[2]) : 200;
  const bool private_arrays = argc > 3 && std::strcmp(argv[3], "private") == 0;
  const size_t one_size = argc > 4 ? std::strtoull(argv[3], nullptr, 10) / 4 * 4 : 0;
  const bool cold = argc > 4 && std::strcmp(argv[4], "cold") == 0;
  auto* const shared =
      static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const auto statuses = testing::in_processes(
      ranks,
      [&](Group& group) {
        alarm(0);
        cpu_set_t allowed, mine;
        sched_getaffinity(0, sizeof allowed, &allowed);
        CPU_ZERO(&mine);
        for (int cpu = 0, left = group.rank() % CPU_COUNT(&allowed); cpu < CPU_SETSIZE; ++cpu)
          if (CPU_ISSET(cpu, &allowed) && left-- == 0) CPU_SET(cpu, &mine);
        sched_setaffinity(0, sizeof mine, &mine);
        Rank rank{group, *shared};
        if (private_arrays) {
          for (const size_t bytes : {size_t{16} << 10, size_t{64} << 10, size_t{256} << 10, size_t{1} << 20,
                                     size_t{4} << 20, size_t{16} << 20, size_t{64} << 20})
            race_private(rank, bytes, std::clamp<int>(static_cast<int>((size_t{1} << 30) / bytes), 10, rounds));
          return 0;
        }
        if (one_size) {
          race(rank, one_size, cold, rounds);
          return 0;
        }
        for (const size_t bytes : {size_t{8}, size_t{1} << 10, size_t{8} << 10, size_t{64} << 10, size_t{256} << 10,
                                   size_t{1} << 20, size_t{4} << 20})
          race(rank, bytes, false, rounds);
        for (const size_t bytes : {size_t{4} << 20, size_t{16} << 20, size_t{64} << 20})
          race(rank, bytes, true, std::max(rounds / 10, 20));
        rusage usage{};
        getrusage(RUSAGE_SELF, &usage);
        if (group.rank() == 0) {
          std::printf("CPU seconds of rank 0: %.2f user, %.2f system\n",
                      static_cast<double>(usage.ru_utime.tv_sec) + static_cast<double>(usage.ru_utime.tv_usec) * 1e-6,
                      static_cast<double>(usage.ru_stime.tv_sec) + static_cast<double>(usage.ru_stime.tv_usec) * 1e-6);
          std::fflush(stdout);
        }
        return 0;
      },
      std::chrono::seconds(60));
  for (const int status : statuses)
    if (status != 0) return 1;
  return 0;
}
