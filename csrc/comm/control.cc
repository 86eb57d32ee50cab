#include "comm/control.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>

#include "runtime/forks.h"
#include "runtime/huge_pages.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring {

namespace {

void require_ranks(int ranks) {
  if (ranks < 1 || ranks > kMostRanks) {
    throw Error(Code::kInvalidArgument,
                "[comm] size is " + std::to_string(ranks) + ": must be 1 to " + std::to_string(kMostRanks) + " ranks");
  }
}

}  // namespace

int ControlBlock::create(int ranks, size_t stage_bytes) {
  require_ranks(ranks);
  if (stage_bytes == 0) stage_bytes = default_stage_bytes(ranks);
  stage_bytes = (stage_bytes + 4095) / 4096 * 4096;
  if (stage_bytes > size_t{64} << 20) {
    throw Error(Code::kInvalidArgument, "[comm] data_bytes is " + std::to_string(stage_bytes) +
                                            ": must be at most 64 MiB for a half of a rank's staging memory");
  }
  // Round a large block up to huge pages, because staging memory is faster in them.
  const size_t bytes = BlockLayout(ranks, stage_bytes).bytes();
  const SharedArena arena(bytes < kHugePage / 4 ? bytes : round_up(bytes, kHugePage));
  format(arena.data(), ranks, stage_bytes);
  const int fd = fcntl(arena.fd(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) throw Error(Code::kIo, std::string("[comm] cannot duplicate a descriptor: ") + std::strerror(errno));
  return fd;
}

void ControlBlock::format(std::byte* memory, int ranks, size_t stage_bytes) noexcept {
  std::memset(memory, 0, BlockLayout(ranks, stage_bytes).stage(0, 0));
  auto& header = *new (memory) Header();
  header.magic = kMagic;
  header.version = kVersion;
  header.ranks = static_cast<uint32_t>(ranks);
  header.stage_bytes = stage_bytes;
}

std::shared_ptr<ControlBlock> ControlBlock::attach(int fd, int ranks, uint64_t generation) {
  require_ranks(ranks);
  auto arena = std::make_shared<SharedArena>(SharedArena::attach(fd));
  const auto& header = *reinterpret_cast<const Header*>(arena->data());
  const bool known = arena->size() >= sizeof(Header) && header.magic == kMagic && header.version == kVersion;
  if (!known || header.stage_bytes > size_t{64} << 20 || header.ranks != static_cast<uint32_t>(ranks) ||
      BlockLayout(ranks, header.stage_bytes).bytes() > arena->size()) {
    const std::string found = known ? "made for " + std::to_string(header.ranks) + " ranks" : "no control segment";
    throw Error(Code::kInvalidArgument, "[comm] fd " + std::to_string(fd) + " is " + found +
                                            ": must be a control segment for " + std::to_string(ranks) + " ranks");
  }
  std::byte* const memory = arena->data();
  return at(memory, std::move(arena), ranks, generation);
}

std::shared_ptr<ControlBlock> ControlBlock::at(std::byte* memory, std::shared_ptr<void> owner, int ranks,
                                               uint64_t generation) {
  return std::shared_ptr<ControlBlock>(new ControlBlock(memory, std::move(owner), ranks, generation));
}

ControlBlock::ControlBlock(std::byte* memory, std::shared_ptr<void> owner, int ranks, uint64_t generation)
    : owner_(std::move(owner)),
      memory_(memory),
      ranks_(ranks),
      stage_bytes_(header().stage_bytes),
      layout_(ranks, stage_bytes_),
      forks_(forks_so_far()) {
  uint64_t seen = 0;
  if (!header().generation.compare_exchange_strong(seen, generation + 1, std::memory_order_acq_rel,
                                                   std::memory_order_acquire) &&
      seen != generation + 1) {
    throw Error(Code::kInvalidArgument, "[comm] generation is " + std::to_string(generation) + ": this group's is " +
                                            std::to_string(seen - 1) + "; a rank of an earlier start cannot join");
  }
  header().users.fetch_add(1, std::memory_order_acq_rel);
}

ControlBlock::~ControlBlock() {
  if (forks_ == forks_so_far()) header().users.fetch_sub(1, std::memory_order_acq_rel);
}

Failure ControlBlock::fail(const Failure& mine) noexcept {
  uint64_t first = 0;
  if (header().failure.compare_exchange_strong(first, mine.packed(), std::memory_order_acq_rel,
                                               std::memory_order_acquire)) {
    return mine;
  }
  return Failure::unpack(first);
}

}  // namespace gradring
