// How threads of a block synchronize: barriers, and the shuffles and votes of a warp.
#include <cstring>

#include "cuda/software/block.h"
#include "cuda/software/report.h"
#include "cuda/software/sanitizers.h"

namespace gradring::software {

namespace {

bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

struct Who {
  char text[128];
  explicit Who(const Thread& thread) { running_block().message(thread, text, sizeof text); }
};

Thread* lane_of(Block& block, size_t warp, int lane) {
  const size_t index = warp * 32 + static_cast<size_t>(lane);
  return index < block.threads.size() ? &block.threads[index] : nullptr;
}

// Checks that every lane that another lane of the warp waits for comes to the same place, with the same mask.
void check_mask(Block& block, size_t warp, const Thread& me, unsigned mask, const Site& site) {
  if (!(mask >> lane_number() & 1)) fail("%s is not in its own mask %08x", Who(me).text, mask);
  for (int lane = 0; lane < 32; ++lane) {
    const Thread* other = lane_of(block, warp, lane);
    const bool wanted = mask >> lane & 1;
    if (wanted && !other) fail("%s: lane %d of mask %08x does not exist", Who(me).text, lane, mask);
    if (!other || other == &me) continue;
    if (wanted && other->state == Thread::State::kDone) {
      fail("%s waits for lane %d of mask %08x, which has exited", Who(me).text, lane, mask);
    }
    if (other->state != Thread::State::kInWarp) continue;
    const bool wants_me = other->mask >> lane_number() & 1;
    if (!wanted && !wants_me) continue;
    if (other->mask != mask) {
      fail("%s has mask %08x, %s of its warp %08x", Who(me).text, mask, Who(*other).text, other->mask);
    }
    if (!same(other->site, site)) {
      fail("%s is at line %u, %s of its warp at line %u", Who(me).text, site.line(), Who(*other).text,
           other->site.line());
    }
  }
}

Meeting& meeting_of(Block& block, size_t warp, unsigned mask) {
  for (Meeting& each : block.warps[warp]) {
    if (each.mask == mask) return each;
  }
  block.warps[warp].push_back({mask});
  return block.warps[warp].back();
}

// The last lane that arrives gives every lane its result.
void meet(unsigned mask, const Site& site, bool orders_memory) {
  const Unseen unseen;
  Block& block = running_block();
  Thread& me = running_thread();
  const size_t warp = linear_thread() / 32;
  check_mask(block, warp, me, mask, site);
  Meeting& meeting = meeting_of(block, warp, mask);
  char* const point = &meeting.points[meeting.turn & 1];
  if (orders_memory) announce_before(point);
  meeting.arrived |= 1u << lane_number();
  me.site = site;
  me.mask = mask;
  me.state = Thread::State::kInWarp;
  if (meeting.arrived == mask) {
    meeting.arrived = 0;
    ++meeting.turn;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      Thread* each = lane_of(block, warp, lane);
      if (each->source >= 0) {
        if (!(mask >> each->source & 1)) {
          fail("%s reads lane %d, which is not in mask %08x", Who(*each).text, each->source, mask);
        }
        each->result = lane_of(block, warp, each->source)->value;
      } else {
        each->result = 0;
        for (int from = 0; from < 32; ++from) {
          if (mask >> from & 1) each->result |= uint64_t{lane_of(block, warp, from)->value != 0} << from;
        }
      }
      each->state = Thread::State::kReady;
    }
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
