#include "runtime/streaming_copy.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

namespace gradring {

namespace {

constexpr size_t kFrom = 16 << 10;

}  // namespace

TEST_CASE("a streaming copy copies every byte and no other, wherever both sides lie") {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 300; ++round) {
    const size_t bytes = random() % 3 == 0 ? random() % 300 : kFrom - 100 + random() % 9000;
    const size_t from_at = random() % 130, to_at = random() % 130;
    std::vector<std::byte> from(from_at + bytes + 200), to(to_at + bytes + 200, std::byte{0x5a});
    for (auto& byte : from) byte = static_cast<std::byte>(random());
    if (round % 2 == 0) {
      streaming_copy<kFrom, 4096>(to.data() + to_at, from.data() + from_at, bytes);
    } else {
      streaming_copy<64>(to.data() + to_at, from.data() + from_at, bytes);
    }
    bool right = std::memcmp(to.data() + to_at, from.data() + from_at, bytes) == 0;
    for (size_t i = 0; i < to_at; ++i) right = right && to[i] == std::byte{0x5a};
    for (size_t i = to_at + bytes; i < to.size(); ++i) right = right && to[i] == std::byte{0x5a};
    REQUIRE(right);
  }
}

}  // namespace gradring
