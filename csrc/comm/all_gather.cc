#include <algorithm>

#include "comm/collectives.h"

namespace gradring {

namespace {

// Up to this many bytes, copying through the staging memory costs less than a second round.
constexpr size_t kOneRoundBytes = size_t{8} << 10;

Code from_segments(Rounds& rounds, const Call& call) noexcept {
  for (int rank = 0; rank < rounds.size(); ++rank) {
    const std::byte* const from = rounds.reach(rank, placement_of(rounds.cell(rank)).in, call.in.bytes());
    if (!from) return rounds.fail(Failure::Reason::kMemory, rounds.rank());
    call.out.scatter(rank * call.in.elements(), call.in.elements(), from);
  }
  failpoint("after write", rounds.rank());
  return rounds.pass_after_access();
}

Code staged(Rounds& rounds, const Call& call) noexcept {
  const int64_t piece = stage_size(rounds, call.agreement.element);
  for (int64_t at = 0; at < call.in.elements(); at += piece) {
    const int64_t count = std::min(piece, call.in.elements() - at);
    rounds.next();
    const std::byte* const mine = put(rounds, call.in, at, count);
    failpoint("staged", rounds.rank());
    rounds.publish();
    if (const Code code = rounds.await_all(); code != Code::kOk) return code;
    for (int rank = 0; rank < rounds.size(); ++rank) {
      call.out.scatter(rank * call.in.elements() + at, count, rank == rounds.rank() ? mine : rounds.stage(rank));
    }
    rounds.end_turn();
  }
  return Code::kOk;
}

}  // namespace

Code all_gather(Rounds& rounds, const Call& call) noexcept {
  const size_t bytes = call.in.bytes();
  const bool in_cells = bytes <= kInlineBytes,
             one_round = bytes <= std::min(kOneRoundBytes, rounds.control().stage_bytes());
  if (in_cells || one_round) {
    Cell& mine = rounds.next();
    const std::byte* own = mine.payload;
    if (in_cells) {
      call.in.gather(0, call.in.elements(), mine.payload);
    } else {
      own = put(rounds, call.in, 0, call.in.elements());
    }
    if (const Code code = rounds.meet(call); code != Code::kOk) return code;
    failpoint("before write", rounds.rank());
    for (int rank = 0; rank < rounds.size(); ++rank) {
      const std::byte* const theirs = in_cells ? rounds.cell(rank).payload : rounds.stage(rank);
      call.out.scatter(rank * call.in.elements(), call.in.elements(), rank == rounds.rank() ? own : theirs);
    }
    if (!in_cells) rounds.end_turn();
    return Code::kOk;
  }
  place(rounds, call, true, false);
  if (const Code code = rounds.meet(call); code != Code::kOk) return code;
  bool shared = true;
  for (int rank = 0; rank < rounds.size(); ++rank)
    shared = shared && placement_of(rounds.cell(rank)).in != Placement::kPrivate;
  if (shared) return from_segments(rounds, call);
  rounds.conceal();
  return staged(rounds, call);
}

}  // namespace gradring
