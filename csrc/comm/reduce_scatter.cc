#include <algorithm>

#include "comm/collectives.h"

namespace gradring {

namespace {

Code in_cells(Rounds& rounds, const Call& call) noexcept {
  const Agreement& a = call.agreement;
  call.in.gather(0, call.in.elements(), rounds.next().payload);
  if (const Code code = rounds.meet(call); code != Code::kOk) return code;
  const size_t begin = static_cast<size_t>(rounds.rank()) * call.out.bytes();
  const void* in[kMostRanks];
  for (int rank = 0; rank < rounds.size(); ++rank) in[rank] = rounds.cell(rank).payload + begin;
  failpoint("before write", rounds.rank());
  combine_into(call.out, 0, a.element, a.reduction,
               {rounds.size(), 1, in, nullptr, call.out.elements(), static_cast<double>(rounds.size())});
  return Code::kOk;
}

Code from_segments(Rounds& rounds, const Call& call) noexcept {
  const Agreement& a = call.agreement;
  const size_t begin = static_cast<size_t>(rounds.rank()) * call.out.bytes();
  const void* in[kMostRanks];
  for (int rank = 0; rank < rounds.size(); ++rank) {
    std::byte* const from = rounds.reach(rank, placement_of(rounds.cell(rank)).in, call.in.bytes());
    if (!from) return rounds.fail(Failure::Reason::kMemory, rounds.rank());
    in[rank] = from + begin;
  }
  failpoint("before write", rounds.rank());
  combine_into(call.out, 0, a.element, a.reduction,
               {rounds.size(), 1, in, nullptr, call.out.elements(), static_cast<double>(rounds.size())});
  failpoint("after write", rounds.rank());
  return rounds.pass_after_access();  // Without this round, a rank could change its array while another still reads it.
}

// Each half of the staging memory holds one piece for every rank.
Code staged(Rounds& rounds, const Call& call) noexcept {
  const Agreement& a = call.agreement;
  const int64_t piece = stage_size(rounds, a.element) / rounds.size();
  const size_t piece_bytes = static_cast<size_t>(piece) * size_of(a.element);
  for (int64_t at = 0; at < call.out.elements(); at += piece) {
    const int64_t count = std::min(piece, call.out.elements() - at);
    rounds.next();
    for (int rank = 0; rank < rounds.size(); ++rank) {
      if (rank == rounds.rank()) continue;
      stage_elements(call.in, rank * call.out.elements() + at, count,
                     rounds.stage(rounds.rank()) + static_cast<size_t>(rank) * piece_bytes, rounds.scratch());
    }
    const int64_t own = rounds.rank() * call.out.elements() + at;
    const std::byte* const mine = in_order(call.in, own, count, rounds.scratch());
    failpoint("staged", rounds.rank());
    rounds.publish();
    if (const Code code = rounds.await_all(); code != Code::kOk) return code;
    const void* in[kMostRanks];
    for (int rank = 0; rank < rounds.size(); ++rank)
      in[rank] = rounds.stage(rank) + static_cast<size_t>(rounds.rank()) * piece_bytes;
    in[rounds.rank()] = mine;
    combine_into(call.out, at, a.element, a.reduction,
                 {rounds.size(), 1, in, nullptr, count, static_cast<double>(rounds.size())});
    rounds.end_turn();
  }
  return Code::kOk;
}

}  // namespace

Code reduce_scatter(Rounds& rounds, const Call& call) noexcept {
  if (call.in.bytes() <= kInlineBytes) return in_cells(rounds, call);
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
