#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "ops/combine/combine_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// Fills an array with random bits, or with values near 1 and a few special ones.
void fill(std::vector<std::byte>& array, Element element, int64_t count, size_t offset) {
  for (auto& byte : array) byte = static_cast<std::byte>(uniform(0, 255));
  if (!is_float(element) || uniform(0, 1)) {
    if (element == Element::kBool)
      for (auto& byte : array) byte &= std::byte{1};
    return;  // random bits: sooner or later every 16-bit NaN, infinity and subnormal number
  }
  const auto values = normal<double>(count);
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(values[static_cast<size_t>(i)]);
    std::byte* const to = array.data() + offset + static_cast<size_t>(i) * size_of(element);
    if (element == Element::kFloat64) {
      std::memcpy(to, &values[static_cast<size_t>(i)], 8);
    } else if (element == Element::kFloat32) {
      std::memcpy(to, &value, 4);
    } else {
      const uint16_t half = element == Element::kFloat16 ? half_from(static_cast<double>(value)).bits
                                                         : bfloat_from(static_cast<double>(value)).bits;
      std::memcpy(to, &half, 2);
    }
  }
}

bool is_nan(const std::byte* at, Element element) {
  uint64_t bits = 0;
  std::memcpy(&bits, at, size_of(element));
  switch (element) {
    case Element::kFloat32: return (bits & 0x7fffffff) > 0x7f800000;
    case Element::kFloat64: return (bits & ~(uint64_t{1} << 63)) > 0x7ff0000000000000;
    case Element::kFloat16: return (bits & 0x7fff) > 0x7c00;
    case Element::kBfloat16: return (bits & 0x7fff) > 0x7f80;
    default: return false;
  }
}

bool same_values(const std::vector<std::byte>& a, const std::vector<std::byte>& b, Element element) {
  for (size_t at = 0; at < a.size(); at += size_of(element)) {
    if (std::memcmp(&a[at], &b[at], size_of(element)) != 0 && !(is_nan(&a[at], element) && is_nan(&b[at], element)))
      return false;
  }
  return true;
}

void check(Element element, Reduction reduction, int inputs, int outputs, bool in_place, int64_t count) {
  const size_t offset = static_cast<size_t>(uniform(0, 3)) * (uniform(0, 1) ? 1 : size_of(element));
  const size_t bytes = offset + static_cast<size_t>(count) * size_of(element);
  std::vector<std::vector<std::byte>> in, out, expected;
  for (int i = 0; i < inputs; ++i) {
    in.emplace_back(bytes);
    fill(in.back(), element, count, offset);
  }
  const double divisor = uniform(0, 1) ? inputs : 2.5;
  for (int i = 0; i < outputs; ++i) out.emplace_back(bytes + 1, std::byte{0x5a});
  expected = out;
  std::vector<const void*> from;
  std::vector<void*> to, reference_to;
  for (auto& array : in) from.push_back(array.data() + offset);
  for (auto& array : expected) reference_to.push_back(array.data() + offset);
  CombineArguments g{inputs, outputs, from.data(), reference_to.data(), count, divisor};
  reference::combine(g, element, reduction);
  const bool over_inputs = in_place && outputs <= inputs;
  for (int i = 0; i < outputs; ++i) {
    auto& target = over_inputs ? in[static_cast<size_t>(i)] : out[static_cast<size_t>(i)];
    to.push_back(target.data() + offset);
  }
  g.out = to.data();
  find_combine(element, reduction)(g);
  for (int k = 0; k < outputs; ++k) {
    const auto* got = static_cast<const std::byte*>(to[static_cast<size_t>(k)]);
    const std::byte* want = expected[static_cast<size_t>(k)].data() + offset;
    for (int64_t i = 0; i < count; ++i) {
      const size_t at = static_cast<size_t>(i) * size_of(element);
      const bool same = std::memcmp(got + at, want + at, size_of(element)) == 0 ||
                        (is_nan(got + at, element) && is_nan(want + at, element));
      if (!same) FAIL_CHECK(element_name(element), " ", reduction_name(reduction), " at ", i, " of ", count);
    }
    CHECK(out[static_cast<size_t>(k)].back() == std::byte{0x5a});
  }
}

}  // namespace

TEST_CASE("combine has the reference's bits, for every element type and op") {
  for_each_isa([] {
    for (int e = 0; e < kElements; ++e) {
      for (int r = 0; r < kReductions; ++r) {
        const auto element = static_cast<Element>(e);
        const auto reduction = static_cast<Reduction>(r);
        if (!can_reduce(element, reduction)) {
          CHECK(!find_combine(element, reduction));
          continue;
        }
        // From 32 KiB to 1 MiB, the kernel reads each of two inputs at three places in turn.
        for (const int64_t large : {int64_t{32} << 10, (int64_t{32} << 10) + uniform(1, 9000)}) {
          const int64_t count = large / static_cast<int64_t>(size_of(element));
          check(element, reduction, 2, 2, true, count);
          check(element, reduction, 2, 1, false, count);
        }
        for (int64_t count : {int64_t{0}, int64_t{1}, int64_t{7}, uniform(1, 70), uniform(60, 600)}) {
          check(element, reduction, 2, 2, true, count);
          check(element, reduction, 2, 1, false, count);
          check(element, reduction, 1, 1, false, count);
          check(element, reduction, static_cast<int>(uniform(2, 9)), static_cast<int>(uniform(1, 9)), uniform(0, 1),
                count);
        }
      }
    }
  });
}

TEST_CASE("an input is refilled while it is read, with the same results") {
  for_each_isa([] {
    for (int e = 0; e < kElements; ++e) {
      for (int r = 0; r < kReductions; ++r) {
        const auto element = static_cast<Element>(e);
        const auto reduction = static_cast<Reduction>(r);
        if (!can_reduce(element, reduction)) continue;
        for (const int64_t count :
             {int64_t{0}, int64_t{1}, int64_t{7}, uniform(1, 70), uniform(60, 600), uniform(33000, 36000)}) {
          const size_t bytes = static_cast<size_t>(count) * size_of(element);
          std::vector<std::byte> mine(bytes), room(bytes), next(bytes), plain(bytes), out(bytes);
          fill(mine, element, count, 0);
          fill(room, element, count, 0);
          for (auto& byte : next) byte = static_cast<std::byte>(uniform(0, 255));
          for (const bool first : {true, false}) {
            std::vector<std::byte> theirs = room;
            const void* in[] = {first ? theirs.data() : mine.data(), first ? mine.data() : theirs.data()};
            void* to = plain.data();
            CombineArguments g{2, 1, in, &to, count, 2.5};
            find_combine(element, reduction)(g);
            to = out.data();
            g.next = next.data();
            g.room = theirs.data();
            find_combine(element, reduction)(g);
            INFO(element_name(element), " ", reduction_name(reduction), " ", count);
            CHECK(same_values(plain, out, element));
            CHECK(theirs == next);
          }
        }
      }
    }
  });
}

TEST_CASE("every half converts to float and back to itself") {
  for_each_isa([] {
    std::vector<uint16_t> all(65536), back(65536);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    for (Element element : {Element::kFloat16, Element::kBfloat16}) {
      const void* in = all.data();
      void* out = back.data();
      find_combine(element, Reduction::kSum)({1, 1, &in, &out, 65536, 1});
      for (size_t i = 0; i < all.size(); ++i) {
        const bool nan = is_nan(reinterpret_cast<const std::byte*>(&all[i]), element);
        const auto quiet = static_cast<uint16_t>(element == Element::kFloat16 ? 0x200 : 0x40);
        if (back[i] != (nan ? all[i] | quiet : all[i])) FAIL_CHECK(element_name(element), " ", i, " ", back[i]);
      }
    }
    CHECK(back.back() == 0xffff);
  });
}

TEST_CASE("an element's bits do not depend on where a slice begins") {
  const int64_t n = 1000;
  for_each_isa([&] {
    for (Element element : {Element::kFloat32, Element::kBfloat16, Element::kFloat16}) {
      std::vector<std::byte> first(n * size_of(element)), second(first.size());
      fill(first, element, n, 0);
      fill(second, element, n, 0);
      std::vector<std::byte> whole(first.size()), pieces(first.size());
      const auto run = [&](std::vector<std::byte>& to, int64_t begin, int64_t count) {
        const size_t at = static_cast<size_t>(begin) * size_of(element);
        const void* in[] = {first.data() + at, second.data() + at};
        void* out[] = {to.data() + at};
        find_combine(element, Reduction::kMean)({2, 1, in, out, count, 3});
      };
      run(whole, 0, n);
      for (int64_t at = 0; at < n;) {
        const int64_t count = std::min(uniform(1, 90), n - at);
        run(pieces, at, count);
        at += count;
      }
      CHECK(std::memcmp(whole.data(), pieces.data(), whole.size()) == 0);
    }
  });
}
