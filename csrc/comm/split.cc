// split: divides the ranks of a group into new groups, whose control blocks lie in memory that the ranks already share.
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "comm/group.h"

namespace gradring {

namespace {

constexpr const char* kNoWords = "[split] no shared memory for the new group's words";

struct Wish {
  int32_t color, key;
};

Wish wish_of(const Cell& cell) noexcept {
  Wish wish;
  std::memcpy(&wish, cell.payload, sizeof wish);
  return wish;
}

}  // namespace

// The first round says who wants which group. The second says where the first member of each group has made the
// control block (in its data segment, which all can map). After the third, each block is in use, or never will be.
std::shared_ptr<Group> Group::split(int color, int key, Waiter* waiter, Code* code) {
  Call call;
  call.agreement.kind = Collective::kSplit;
  if ((*code = refusal()) != Code::kOk) return nullptr;
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
  bool memory = true;
  if (!members.empty()) {
    std::memcpy(&offset, rounds_.cell(members[0]).payload, sizeof offset);
    group = adopt_words(members, offset);
    memory = group != nullptr;
  }
  failpoint("after write", rank());
  if (failed(rounds_.pass())) return nullptr;
  if (!memory) throw Error(Code::kOutOfMemory, kNoWords);
  return group;
}

uint64_t Group::make_words(int ranks) {
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

// Null if this rank cannot map the group's control block.
std::shared_ptr<Group> Group::adopt_words(const std::vector<int>& members, uint64_t offset) {
  const auto ranks = static_cast<int>(members.size());
  const size_t bytes = BlockLayout(ranks, default_stage_bytes(ranks)).bytes();
  std::byte* const words = offset == Placement::kPrivate ? nullptr : rounds_.reach(members[0], offset, bytes);
  if (!words) return nullptr;
  const auto place = std::find(members.begin(), members.end(), rank()) - members.begin();
  std::vector<int> origins, pidfds;
  for (const int member : members) {
    const auto index = static_cast<size_t>(member);
    origins.push_back(rounds_.origins()[index]);
    const int pidfd = rounds_.pidfds()[index];
    pidfds.push_back(pidfd < 0 ? -1 : fcntl(pidfd, F_DUPFD_CLOEXEC, 0));
  }
  auto control = ControlBlock::at(words, segments(), ranks, 0);
  if (members[0] == rank()) segments()->keep_words(words);
  return std::shared_ptr<Group>(new Group(std::move(control), segments(), static_cast<int>(place), std::move(origins),
                                          std::move(pidfds), rounds_.timeout(), has_threads()));
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
  Call call;
  call.agreement.kind = Collective::kSplit;
  if (const Code code = refusal(); code != Code::kOk) throw Error(Code::kUnavailable, message(code, call));
  const Executing lock(*this, nullptr);
  auto group = adopt_words(members, offset);
  if (!group) throw Error(Code::kOutOfMemory, kNoWords);
  return group;
}

}  // namespace gradring
