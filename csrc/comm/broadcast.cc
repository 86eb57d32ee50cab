#include <algorithm>

#include "comm/collectives.h"

namespace gradring {

// The root's array goes to all other ranks. To be read in place, only the root's array must lie in a data segment.
Code broadcast(Rounds& rounds, const Call& call) noexcept {
  const int root = call.agreement.root;
  const bool sends = rounds.rank() == root;
  const int64_t elements = call.in.elements();
  if (call.in.bytes() <= kInlineBytes) {
    Cell& mine = rounds.next();
    if (sends) call.in.gather(0, elements, mine.payload);
    if (const Code code = rounds.meet(call); code != Code::kOk) return code;
    failpoint("before write", rounds.rank());
    if (!sends) call.out.scatter(0, elements, rounds.cell(root).payload);
    return Code::kOk;
  }
  place(rounds, call, sends, false);
  if (const Code code = rounds.meet(call); code != Code::kOk) return code;
  const Placement placement = placement_of(rounds.cell(root));
  if (placement.in != Placement::kPrivate) {
    const std::byte* const from = rounds.reach(root, placement.in, call.in.bytes());
    if (!from) return rounds.fail(Failure::Reason::kMemory, rounds.rank());
    if (!sends) call.out.scatter(0, elements, from);
    failpoint("after write", rounds.rank());
    return rounds.pass_after_access();
  }
  const int64_t piece = stage_size(rounds, call.agreement.element);
  for (int64_t at = 0; at < elements; at += piece) {
    const int64_t count = std::min(piece, elements - at);
    rounds.next();
    if (sends) put(rounds, call.in, at, count);
    failpoint("staged", rounds.rank());
    rounds.publish();
    if (const Code code = rounds.await_all(); code != Code::kOk) return code;
    if (!sends) call.out.scatter(at, count, rounds.stage(root));
    rounds.end_turn();
  }
  return Code::kOk;
}

}  // namespace gradring
