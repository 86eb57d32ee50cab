// How threads of a block synchronize: barriers, and the shuffles and votes of a warp.
#include <algorithm>
#include <bit>
#include <cstring>

#include "cuda/software/block.h"
#include "cuda/software/report.h"
#include "cuda/software/sanitizers.h"

namespace gradring::software {

namespace {

bool same(const Site& a, const Site& b) {
  if (a.line() != b.line() || a.column() != b.column()) return false;
  return a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0;
}

struct Who {
  char text[128];
  explicit Who(const Thread& thread) { running_block().message(thread, text, sizeof text); }
};

Thread& lane_of(Block& block, size_t warp, int lane) { return block.threads[warp * 32 + static_cast<size_t>(lane)]; }

Meeting& meeting_of(Warp& warp, unsigned mask) {
  for (Meeting& each : warp.meetings) {
    if (each.mask == mask) return each;
  }
  warp.meetings.push_back({mask});
  return warp.meetings.back();
}

// Checks that every lane that another lane of the warp waits for comes to the same place, with the same mask.
void check_mask(Block& block, size_t warp, const Meeting& meeting, const Site& site) {
  const unsigned mask = meeting.mask;
  const Thread& me = running_thread();
  if (!(mask >> lane_number() & 1)) fail("%s is not in its own mask %08x", Who(me).text, mask);
  const Warp& all = block.warps[warp];
  const size_t lanes = std::min<size_t>(32, block.threads.size() - warp * 32);
  if (const uint64_t missing = uint64_t{mask} >> lanes; missing != 0) {
    fail("%s: lane %d of mask %08x does not exist", Who(me).text, static_cast<int>(lanes) + std::countr_zero(missing),
         mask);
  }
  if (const unsigned exited = mask & all.exited; exited != 0) {
    fail("%s waits for lane %d of mask %08x, which has exited", Who(me).text, std::countr_zero(exited), mask);
  }
  // One of those that have arrived stands for all of them: each was compared with it.
  unsigned others = (all.waiting & ~meeting.arrived) | (meeting.arrived & -meeting.arrived);
  for (; others != 0; others &= others - 1) {
    const int lane = std::countr_zero(others);
    const Thread& other = lane_of(block, warp, lane);
    const bool wanted = mask >> lane & 1, wants_me = other.mask >> lane_number() & 1;
    if (!wanted && !wants_me) continue;
    if (other.mask != mask) {
      fail("%s has mask %08x, %s of its warp %08x", Who(me).text, mask, Who(other).text, other.mask);
    }
    if (!same(other.site, site)) {
      fail("%s is at line %u, %s of its warp at line %u", Who(me).text, site.line(), Who(other).text,
           other.site.line());
    }
  }
}

// Gives every lane of the mask its result.
void finish_meeting(Block& block, size_t warp, unsigned mask) {
  uint64_t votes = 0;
  for (unsigned left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    votes |= uint64_t{lane_of(block, warp, lane).value != 0} << lane;
  }
  for (unsigned left = mask; left != 0; left &= left - 1) {
    Thread& each = lane_of(block, warp, std::countr_zero(left));
    if (each.source >= 0 && !(mask >> each.source & 1)) {
      fail("%s reads lane %d, which is not in mask %08x", Who(each).text, each.source, mask);
    }
    each.result = each.source >= 0 ? lane_of(block, warp, each.source).value : votes;
    each.state = Thread::State::kReady;
  }
}

// The last lane that arrives gives every lane its result.
void meet(unsigned mask, const Site& site, bool orders_memory) {
  const Unseen unseen;
  Block& block = running_block();
  Thread& me = running_thread();
  const size_t warp = linear_thread() / 32;
  Warp& lanes = block.warps[warp];
  Meeting& meeting = meeting_of(lanes, mask);
  check_mask(block, warp, meeting, site);
  char* const point = &meeting.points[meeting.turn & 1];
  if (orders_memory) announce_before(point);
  meeting.arrived |= 1u << lane_number();
  lanes.waiting |= 1u << lane_number();
  me.site = site;
  me.mask = mask;
  me.state = Thread::State::kInWarp;
  if (meeting.arrived == mask) {
    meeting.arrived = 0;
    ++meeting.turn;
    lanes.waiting &= ~mask;
    finish_meeting(block, warp, mask);
  }
  yield();
  if (orders_memory) announce_after(point);
}

}  // namespace

int block_barrier(Vote vote, bool mine, const Site& site) {
  const Unseen unseen;
  Block& block = running_block();
  Thread& me = running_thread();
  if (block.arrived == 0) {
    block.site = site;
    block.vote = vote;
  } else if (!same(block.site, site) || block.vote != vote) {
    fail("divergent barrier: %s is at %s:%u, others at %s:%u", Who(me).text, site.file_name(), site.line(),
         block.site.file_name(), block.site.line());
  }
  if (block.live < block.count) {
    fail("%s is at a barrier (%s:%u), and %d of %d threads have exited", Who(me).text, site.file_name(), site.line(),
         block.count - block.live, block.count);
  }
  char* const point = &block.points[block.turn & 1];
  announce_before(point);
  me.site = site;
  me.value = mine;
  me.state = Thread::State::kAtBarrier;
  if (++block.arrived == block.count) {
    block.arrived = 0;
    ++block.turn;
    uint64_t count = 0;
    for (const Thread& each : block.threads) count += each.value;
    const uint64_t all = static_cast<uint64_t>(block.count);
    const uint64_t result = vote == Vote::kCount ? count : vote == Vote::kAnd ? count == all : count > 0;
    for (Thread& each : block.threads) {
      each.result = result;
      each.state = Thread::State::kReady;
    }
  }
  yield();
  announce_after(point);
  return static_cast<int>(me.result);
}

void warp_barrier(unsigned mask, const Site& site) {
  running_thread().source = -1;
  running_thread().value = 0;
  meet(mask, site, true);
}

uint64_t shuffle(unsigned mask, uint64_t mine, int source, const Site& site) {
  running_thread().value = mine;
  running_thread().source = source;
  meet(mask, site, false);
  return running_thread().result;
}

unsigned ballot(unsigned mask, bool mine, const Site& site) {
  running_thread().value = mine;
  running_thread().source = -1;
  meet(mask, site, false);
  return static_cast<unsigned>(running_thread().result);
}

}  // namespace gradring::software
