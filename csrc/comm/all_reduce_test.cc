#include <doctest/doctest.h>
#include <sys/prctl.h>

#include <cstring>
#include <mutex>
#include <random>

#include "comm/testing.h"
#include "ops/combine/combine_ref.h"
#include "runtime/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// The array of rank `rank`, which any rank can compute. Halves and floats are of moderate size.
std::vector<std::byte> input_of(int rank, Element element, int64_t count, uint64_t seed) {
  std::mt19937_64 bits(seed * 1000003 + static_cast<uint64_t>(rank));
  std::vector<std::byte> bytes(static_cast<size_t>(count) * size_of(element) + 8);
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t random = bits();
    const double value = static_cast<double>(static_cast<int64_t>(random)) * 0x1p-62;
    std::byte* const to = bytes.data() + static_cast<size_t>(i) * size_of(element);
    if (element == Element::kFloat32) {
      const auto single = static_cast<float>(value);
      std::memcpy(to, &single, 4);
    } else if (element == Element::kFloat64) {
      std::memcpy(to, &value, 8);
    } else if (element == Element::kFloat16 || element == Element::kBfloat16) {
      const bool half = element == Element::kFloat16;
      const uint16_t narrow = half ? half_from(value).bits : bfloat_from(value).bits;
      std::memcpy(to, &narrow, 2);
    } else if (element == Element::kBool) {
      *to = static_cast<std::byte>(random & 1);
    } else {
      std::memcpy(to, &random, size_of(element));
    }
  }
  return bytes;
}

std::vector<std::byte> expected_of(int ranks, Element element, Reduction reduction, int64_t count, uint64_t seed,
                                   double divisor) {
  std::vector<std::vector<std::byte>> inputs;
  std::vector<const void*> in;
  for (int rank = 0; rank < ranks; ++rank) inputs.push_back(input_of(rank, element, count, seed));
  for (auto& input : inputs) in.push_back(input.data());
  std::vector<std::byte> result(inputs[0].size());
  void* out = result.data();
  reference::combine({ranks, 1, in.data(), &out, count, divisor}, element, reduction);
  return result;
}

enum class Kind { kShared, kPrivate, kStrided, kMixed, kOut };

// Runs one all_reduce and compares every byte. Returns false, and writes a message to stderr, if a byte is wrong.
bool reduces(Group& group, Element element, Reduction reduction, int64_t count, Kind kind, uint64_t seed,
             bool weighted = false) {
  const size_t item = size_of(element), bytes = static_cast<size_t>(count) * item;
  const bool shared = kind == Kind::kShared || kind == Kind::kOut || (kind == Kind::kMixed && group.rank() % 2 == 0);
  const int64_t step = kind == Kind::kStrided ? 2 + group.rank() : 1;
  Memory memory(group, bytes * static_cast<size_t>(step), shared), other(group, bytes, shared);
  const auto input = input_of(group.rank(), element, count, seed);
  const auto stride = static_cast<int64_t>(item) * step;
  const CommOperand in =
      step == 1 ? CommOperand(memory.as(), count, item) : CommOperand(memory.as(), 1, &count, &stride, item);
  in.scatter(0, count, input.data());
  const CommOperand out = kind == Kind::kOut ? CommOperand(other.as(), count, item) : in;
  Call call = reduce_call(in, out, element, reduction);
  double divisor = group.size();
  if (weighted) {
    call.agreement.weighted = true;
    call.weight = group.rank() + 0.5;
    divisor = 0;
    for (int rank = 0; rank < group.size(); ++rank) divisor += rank + 0.5;
  }
  const Code code = group.run(call);
  if (code != Code::kOk) {
    std::fprintf(stderr, "%s\n", group.message(code, call).c_str());
    return false;
  }
  std::vector<std::byte> got(bytes), kept(bytes);
  out.gather(0, count, got.data());
  in.gather(0, count, kept.data());
  const auto expected = expected_of(group.size(), element, reduction, count, seed, divisor);
  const bool same = bytes == 0 || std::memcmp(got.data(), expected.data(), bytes) == 0;
  const bool whole = kind != Kind::kOut || bytes == 0 || std::memcmp(kept.data(), input.data(), bytes) == 0;
  if (!same || !whole) {
    std::fprintf(stderr, "rank %d: all_reduce %s %s of %lld, kind %d\n", group.rank(), reduction_name(reduction),
                 element_name(element), static_cast<long long>(count), static_cast<int>(kind));
  }
  return same && whole;
}

constexpr int64_t kCounts[] = {0, 1, 3, 12, 13, 100, 1000, 2047, 2049, 40000, 140003};

bool reduces_all(Group& group) {
  bool good = true;
  uint64_t seed = 0;
  for (const int64_t count : kCounts) {
    for (const Kind kind : {Kind::kShared, Kind::kPrivate, Kind::kStrided, Kind::kMixed, Kind::kOut}) {
      for (int e = 0; e < kElements; ++e) {
        const auto element = static_cast<Element>(e);
        const auto reduction = static_cast<Reduction>(++seed % kReductions);
        if (can_reduce(element, reduction) && (count < 10000 || e < 4 || seed % 4 == 0))
          good = reduces(group, element, reduction, count, kind, seed) && good;
      }
      good = reduces(group, Element::kFloat32, Reduction::kMean, count, kind, ++seed, true) && good;
    }
  }
  return good;
}

}  // namespace

TEST_CASE("all_reduce among threads has the reference's bits for every kind of array") {
  for (const int ranks : {1, 2, 3}) {
    std::atomic<int> good{0};
    on_threads(ranks, [&](Group& group) { good.fetch_add(reduces_all(group), std::memory_order_relaxed); });
    CHECK(good.load(std::memory_order_relaxed) == ranks);
  }
}

TEST_CASE("all_reduce among forked processes has the reference's bits for every kind of array" *
          doctest::skip(kThreadSanitized)) {
  for (const int ranks : {2, 3}) {
    const auto statuses = in_processes(ranks, [](Group& group) { return reduces_all(group) ? 0 : 1; });
    CHECK(statuses == std::vector<int>(static_cast<size_t>(ranks), 0));
  }
}

TEST_CASE("arrays of some megabytes have the reference's bits, with huge pages and where they are refused" *
          doctest::skip(kThreadSanitized)) {
  for (const bool refused : {false, true}) {
    const auto statuses = in_processes(2, [refused](Group& group) {
      if (refused) prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
      bool good = true;
      for (const Kind kind : {Kind::kShared, Kind::kPrivate, Kind::kStrided})
        good = reduces(group, Element::kFloat32, Reduction::kMean, 1'200'007, kind, 7) && good;
      return good ? 0 : 1;
    });
    INFO("refused: ", refused);
    CHECK(statuses == std::vector<int>(2, 0));
  }
}

TEST_CASE("all_reduce among many ranks, of whose places in staging memory each is smaller than a cache line") {
  constexpr int kRanks = 70;
  const int segment = ControlBlock::create(kRanks, 4096);
  std::vector<int> data;
  for (int rank = 0; rank < kRanks; ++rank) data.push_back(OwnSegment::create());
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      const std::vector<int> none(kRanks, -1);
      const auto group = Group::join(segment, rank, kRanks, 0, none, data, seconds(50));
      bool same = true;
      for (const Kind kind : {Kind::kPrivate, Kind::kStrided, Kind::kMixed}) {
        same = reduces(*group, Element::kFloat64, Reduction::kMean, 701, kind, 3) && same;
        same = reduces(*group, Element::kInt8, Reduction::kSum, 4501, kind, 4) && same;
      }
      good.fetch_add(same, std::memory_order_relaxed);
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(good.load(std::memory_order_relaxed) == kRanks);
  close(segment);
  for (const int fd : data) close(fd);
}

TEST_CASE("all_reduce refuses weights that add up to nothing, on every rank, and goes on") {
  std::atomic<int> refused{0}, fine{0};
  on_threads(2, [&](Group& group) {
    for (const int64_t count : {4, 300, 20000}) {
      Memory memory(group, static_cast<size_t>(count) * 4, true);
      std::memset(memory.as(), 0, static_cast<size_t>(count) * 4);
      const CommOperand x(memory.as(), count, 4);
      Call call = reduce_call(x, x, Element::kFloat32, Reduction::kMean);
      call.agreement.weighted = true;
      call.weight = group.rank() ? -1.5 : 1.5;
      refused.fetch_add(group.run(call) == Code::kInvalidArgument, std::memory_order_relaxed);
      fine.fetch_add(reduces(group, Element::kFloat32, Reduction::kSum, count, Kind::kShared, 5),
                     std::memory_order_relaxed);
    }
  });
  CHECK(refused.load(std::memory_order_relaxed) == 6);
  CHECK(fine.load(std::memory_order_relaxed) == 6);
}
