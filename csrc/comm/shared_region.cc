#include "comm/shared_region.h"

#include <cstring>
#include <utility>

#include "comm/group.h"
#include "comm/protocol.h"
#include "runtime/forks.h"
#include "runtime/huge_pages.h"
#include "runtime/round_up.h"

namespace gradring {

namespace {

constexpr size_t kPage = 4096;

// A part of 2 MiB or more begins at a huge page.
std::vector<size_t> places_of(const std::vector<size_t>& parts, size_t* end) {
  std::vector<size_t> places;
  *end = round_up(sizeof(Header), kPage);
  for (const size_t bytes : parts) {
    const size_t unit = bytes >= kHugePage ? kHugePage : kPage;
    places.push_back(round_up(*end, unit));
    *end = places.back() + round_up(bytes, unit);
  }
  return places;
}

Header& header_of(std::byte* words) noexcept { return *reinterpret_cast<Header*>(words); }

}  // namespace

size_t SharedRegion::bytes_of(const std::vector<size_t>& parts) noexcept {
  size_t end = 0;
  places_of(parts, &end);
  return end;
}

SharedRegion::SharedRegion(std::shared_ptr<Segments> segments, std::byte* words, int fd, uint64_t offset,
                           std::vector<size_t> parts)
    : segments_(std::move(segments)),
      words_(words),
      fd_(fd),
      offset_(offset),
      sizes_(std::move(parts)),
      forks_(forks_so_far()) {
  size_t end = 0;
  places_ = places_of(sizes_, &end);
  header_of(words_).users.fetch_add(1, std::memory_order_acq_rel);
}

SharedRegion::~SharedRegion() {
  if (forks_ == forks_so_far()) header_of(words_).users.fetch_sub(1, std::memory_order_acq_rel);
}

std::shared_ptr<SharedRegion> Group::share(const std::vector<size_t>& parts, Waiter* waiter, Code* code) {
  const size_t bytes = SharedRegion::bytes_of(parts);
  Call call;
  call.agreement.kind = Collective::kShare;
  call.agreement.count = bytes;
  if ((*code = refusal()) != Code::kOk || (*code = drain(waiter)) != Code::kOk) return nullptr;
  const Executing lock(*this, waiter);
  const auto failed = [&](Code why) {
    *code = ended(why);
    return *code != Code::kOk;
  };
  if (failed(rounds_.begin(call, waiter))) return nullptr;
  rounds_.next();
  // Rank 0 must not reserve memory before all ranks have asked for the same sizes.
  if (failed(rounds_.meet(call))) return nullptr;
  const int owner = rounds_.origins()[0];
  uint64_t offset = Placement::kPrivate;
  std::byte* made = nullptr;
  if (rank() == 0) {
    try {
      OwnSegment& own = segments()->own;
      segments()->free_unused_words();
      made = static_cast<std::byte*>(own.allocate_words(bytes));
      if (own.offset_of(made, bytes, &offset)) {
        std::memset(made, 0, bytes);
      } else {
        own.free(made);
        offset = Placement::kPrivate;  // the other ranks have lost this segment, after a failure of another group
      }
    } catch (const Error&) {  // `offset` stays kPrivate, which tells the others
    }
  }
  std::memcpy(rounds_.next().payload, &offset, sizeof offset);
  rounds_.publish();
  if (failed(rounds_.await_all())) return nullptr;
  std::memcpy(&offset, rounds_.cell(0).payload, sizeof offset);
  std::byte* const words = offset == Placement::kPrivate ? nullptr : rounds_.reach(0, offset, bytes);
  std::shared_ptr<SharedRegion> region;
  if (words) {
    const int fd = rank() == 0 ? segments()->own.fd() : segments()->peers[static_cast<size_t>(owner)]->fd();
    region = std::make_shared<SharedRegion>(segments(), words, fd, offset, parts);
    if (rank() == 0) segments()->keep_words(words);
  }
  // All ranks use the region, or none does.
  const uint64_t good = region != nullptr;
  std::memcpy(rounds_.next().payload, &good, sizeof good);
  rounds_.publish();
  if (failed(rounds_.await_all())) return nullptr;
  for (int other = 0; other < size(); ++other) {
    uint64_t theirs = 0;
    std::memcpy(&theirs, rounds_.cell(other).payload, sizeof theirs);
    if (!theirs) {
      *code = Code::kOutOfMemory;
      return nullptr;
    }
  }
  failpoint("shared", rank());
  return region;
}

Code Group::meet(const std::byte* mine, std::byte* all, uint32_t* sequence, Waiter* waiter) noexcept {
  if (const Code code = refusal(); code != Code::kOk) return code;
  if (const Code code = drain(waiter); code != Code::kOk) return code;
  Call call;
  call.agreement.kind = Collective::kMeeting;
  const Executing lock(*this, waiter);
  if (const Code code = rounds_.begin(call, waiter); code != Code::kOk) return ended(code);
  *sequence = rounds_.sequence();
  std::memcpy(rounds_.next().payload, mine, kInlineBytes);
  const Code code = rounds_.meet(call);
  if (code == Code::kOk) gathered(all);
  return ended(code);
}

void Group::gathered(std::byte* all) noexcept {
  for (int other = 0; other < size(); ++other)
    std::memcpy(all + static_cast<size_t>(other) * kInlineBytes, rounds_.cell(other).payload, kInlineBytes);
}

}  // namespace gradring
