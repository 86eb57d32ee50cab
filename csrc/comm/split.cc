// split: divides the ranks of a group into new groups, whose control blocks lie in memory that the ranks already share.
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "comm/descriptors.h"
#include "comm/group.h"

namespace gradring {

namespace {

constexpr const char* kNoWords =
    "[split] no shared memory for the new group's words: there is none left, or it is private since a group of these "
    "ranks failed";

struct Wish {
  int32_t color, key;
};

Wish wish_of(const Cell& cell) noexcept {
  Wish wish;
  std::memcpy(&wish, cell.payload, sizeof wish);
  return wish;
}

Call call_of_split() {
  Call call;
  call.agreement.kind = Collective::kSplit;
  return call;
}

}  // namespace

// The first round says who wants which group. The second says where the first member of each group has made the
// control block (in its data segment, which all can map). The third says whether each member could join its group.
std::shared_ptr<Group> Group::split(int color, int key, Waiter* waiter, Code* code) {
  const Call call = call_of_split();
  if ((*code = refusal()) != Code::kOk || (*code = drain(waiter)) != Code::kOk) return nullptr;
  const Executing lock(*this, waiter);
  const auto failed = [&](Code why) {
    *code = ended(why);
    return *code != Code::kOk;
  };
  if (failed(rounds_.begin(call, waiter))) return nullptr;
  const Wish mine{color, key};
  std::memcpy(rounds_.next().payload, &mine, sizeof mine);
  if (failed(rounds_.meet(call))) return nullptr;
  std::vector<int> members;
  std::vector<int> keys(static_cast<size_t>(size()));
  for (int rank = 0; rank < size(); ++rank) {
    const Wish wish = wish_of(rounds_.cell(rank));
    keys[static_cast<size_t>(rank)] = wish.key;
    if (color >= 0 && wish.color == color) members.push_back(rank);
  }
  // Sort by key, and by rank where keys are equal. (std::stable_sort of some libraries uses what C++20 has deprecated.)
  std::sort(members.begin(), members.end(), [&](int a, int b) {
    return std::pair(keys[static_cast<size_t>(a)], a) < std::pair(keys[static_cast<size_t>(b)], b);
  });
  uint64_t offset = Placement::kPrivate;
  if (!members.empty() && members[0] == rank()) {
    try {
      offset = make_words(static_cast<int>(members.size()));
    } catch (const Error&) {  // `offset` stays kPrivate, which tells the members
    }
  }
  std::memcpy(rounds_.next().payload, &offset, sizeof offset);
  failpoint("staged", rank());
  rounds_.publish();
  if (failed(rounds_.await_all())) return nullptr;
  std::shared_ptr<Group> group;
  std::string why;
  if (!members.empty()) {
    std::memcpy(&offset, rounds_.cell(members[0]).payload, sizeof offset);
    try {
      group = adopt_words(members, offset);
    } catch (const std::exception& error) {
      why = error.what();
    }
  }
  failpoint("after write", rank());
  // All members join the group, or none does.
  const uint64_t good = members.empty() || group != nullptr;
  std::memcpy(rounds_.next().payload, &good, sizeof good);
  rounds_.publish();
  if (failed(rounds_.await_all())) return nullptr;
  if (!good) throw Error(Code::kOutOfMemory, why.empty() ? kNoWords : "[split] cannot join the new group: " + why);
  for (const int member : members) {
    uint64_t theirs = 0;
    std::memcpy(&theirs, rounds_.cell(member).payload, sizeof theirs);
    if (!theirs)
      throw Error(Code::kOutOfMemory, "[split] rank " + std::to_string(member) + " cannot join the new group");
  }
  return group;
}

uint64_t Group::make_words(int ranks) {
  if (forked()) throw Error(Code::kUnavailable, message(Code::kUnavailable, call_of_split()));
  if (ranks < 1 || ranks > size()) {
    throw Error(Code::kInvalidArgument, "[split] a group of " + std::to_string(ranks) + " of " +
                                            std::to_string(size()) + " ranks: must be one to all of them");
  }
  const size_t stage = default_stage_bytes(ranks), bytes = BlockLayout(ranks, stage).bytes();
  OwnSegment& own = segments()->own;
  segments()->free_unused_words();
  auto* const words = static_cast<std::byte*>(own.allocate_words(bytes));
  ControlBlock::format(words, ranks, stage);
  uint64_t offset = 0;
  if (!own.offset_of(words, bytes, &offset)) {
    own.free(words);
    throw Error(Code::kOutOfMemory, kNoWords);
  }
  return offset;
}

// This rank cannot map the control block of a new group. So it writes there by a system call that it has left: a member that waits
// for it finds this at once.
void Group::decline(int maker, uint64_t offset, int ranks, int place) noexcept {
  if (maker == rank()) return;
  const int fd = segments()->peers[static_cast<size_t>(rounds_.origins()[static_cast<size_t>(maker)])]->fd();
  const BlockLayout layout(ranks, default_stage_bytes(ranks));
  const Presence presence = Presence::kClosed;
  const auto at = static_cast<off_t>(offset + layout.state(place) + offsetof(RankState, presence));
  (void)!pwrite(fd, &presence, sizeof presence, at);
}

// Null if this rank cannot map the group's control block. Throws if it lacks memory or descriptors for anything else: other members
// that wait for it in the new group then learn that it will not come.
std::shared_ptr<Group> Group::adopt_words(const std::vector<int>& members, uint64_t offset) {
  const auto ranks = static_cast<int>(members.size());
  const size_t bytes = BlockLayout(ranks, default_stage_bytes(ranks)).bytes();
  std::byte* const words = offset == Placement::kPrivate ? nullptr : rounds_.reach(members[0], offset, bytes);
  const auto place = static_cast<int>(std::find(members.begin(), members.end(), rank()) - members.begin());
  if (!words) {
    if (offset != Placement::kPrivate) decline(members[0], offset, ranks, place);
    return nullptr;
  }
  auto control = ControlBlock::at(words, segments(), ranks, 0);
  try {
    if (members[0] == rank()) segments()->keep_words(words);
    std::vector<int> origins;
    Descriptors pidfds;
    for (const int member : members) {
      const auto index = static_cast<size_t>(member);
      origins.push_back(rounds_.origins()[index]);
      pidfds.add(rounds_.pidfds()[index]);
    }
    return std::shared_ptr<Group>(
        new Group(control, segments(), place, std::move(origins), pidfds.release(), rounds_.timeout(), has_threads()));
  } catch (...) {
    control->state(place).presence.store(Presence::kClosed, std::memory_order_release);
    throw;
  }
}

std::shared_ptr<Group> Group::join_words(const std::vector<int>& members, uint64_t offset) {
  std::vector<int> sorted = members;
  std::sort(sorted.begin(), sorted.end());
  const bool good = !sorted.empty() && sorted.front() >= 0 && sorted.back() < size() &&
                    std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end() &&
                    std::binary_search(sorted.begin(), sorted.end(), rank());
  if (!good) {
    throw Error(Code::kInvalidArgument, "[split] members must be different ranks of this group, and rank " +
                                            std::to_string(rank()) + " one of them");
  }
  if (const Code code = refusal(); code != Code::kOk) throw Error(Code::kUnavailable, message(code, call_of_split()));
  const Executing lock(*this, nullptr);
  auto group = adopt_words(members, offset);
  if (!group) throw Error(Code::kOutOfMemory, kNoWords);
  return group;
}

}  // namespace gradring
