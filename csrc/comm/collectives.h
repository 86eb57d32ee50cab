// The collectives, each in a file of its own. Traffic counts loads and stores of operand bytes per rank, for N bytes and p
// ranks; docs/collectives.md derives it.
//
// Each begins with a round in which the ranks find out whether they all call the same operation, before any of them
// writes. Operands of up to 48 bytes travel in that round's cell. If all operands lie in data segments, the ranks read
// them there; if not, the operands go through two halves of staging memory, in pieces that stay in a core's cache.
#pragma once

#include "comm/rounds.h"
#include "comm/stage.h"
#include "ops/combine/combine.h"

namespace gradring {

// The rank that owns a slice reduces it from all ranks' arrays, in rank order, and writes it to all of them: 2 N. Through
// staging memory: 5 N for two ranks, (6 - 4/p) N for more.
Code all_reduce(Rounds& rounds, const Call& call) noexcept;
// Each rank reads its block of all arrays: (1 + 1/p) N.
Code reduce_scatter(Rounds& rounds, const Call& call) noexcept;
// Each rank copies every rank's array: 2 p N.
Code all_gather(Rounds& rounds, const Call& call) noexcept;
// Each rank copies the root's array: 2 N.
Code broadcast(Rounds& rounds, const Call& call) noexcept;
Code barrier(Rounds& rounds, const Call& call) noexcept;

// Functions that several collectives share.

// Writes the places of the operands into the payload of the next cell. `out` says whether other ranks write to call.out.
inline void place(Rounds& rounds, const Call& call, bool in, bool out) noexcept {
  Placement placement;
  const OwnSegment& own = rounds.segments()->own;
  // An operation on other arrays is not exposed, so it goes on if this rank loses its segment.
  if ((in && own.contains(call.in.data())) || (out && own.contains(call.out.data()))) rounds.expose();
  if (in && (!call.in.contiguous() || !own.offset_of(call.in.data(), call.in.bytes(), &placement.in)))
    placement.in = Placement::kPrivate;
  if (out && (!call.out.contiguous() || !own.offset_of(call.out.data(), call.out.bytes(), &placement.out)))
    placement.out = Placement::kPrivate;
  if (placement.in == Placement::kPrivate && placement.out == Placement::kPrivate) rounds.conceal();
  placement.weight = call.weight;
  __builtin_memcpy(rounds.next().payload, &placement, sizeof placement);
}

inline Placement placement_of(const Cell& cell) noexcept {
  Placement placement;
  __builtin_memcpy(&placement, cell.payload, sizeof placement);
  return placement;
}

// How many elements fit into one half of a rank's staging memory.
inline int64_t stage_size(Rounds& rounds, Element element) noexcept {
  return static_cast<int64_t>(rounds.control().stage_bytes() / size_of(element));
}

// Copies elements to this round's half of the staging memory, and returns where this rank itself reads them.
inline const std::byte* put(Rounds& rounds, const CommOperand& array, int64_t first, int64_t count) noexcept {
  return stage_elements(array, first, count, rounds.stage(rounds.rank()), rounds.scratch());
}

// Reduces contiguous inputs, and writes the result to `out`, of any strides, from its element `first` on.
void combine_into(const CommOperand& out, int64_t first, Element element, Reduction reduction,
                  CombineArguments arguments) noexcept;

}  // namespace gradring
