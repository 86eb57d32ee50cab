#include <algorithm>
#include <cstring>

#include "comm/collectives.h"

namespace gradring {

namespace {

// Up to here a rank whose array lies elsewhere copies it to its staging memory before the meeting: if all do, each reduces
// them by itself, and the meeting was the only round.
constexpr size_t kOneRoundBytes = size_t{16} << 10;
// Slices begin at multiples of so many elements: no cache line has two owners.
constexpr int64_t kGrain = 64;

struct Slice {
  int64_t begin, end;
};

Slice slice_of(int rank, int ranks, int64_t count) noexcept {
  const int64_t grains = (count + kGrain - 1) / kGrain;
  return {std::min(grains * rank / ranks * kGrain, count), std::min(grains * (rank + 1) / ranks * kGrain, count)};
}

// The sum of the weights, in rank order; the number of ranks where there are none.
template <class WeightOf>
double divisor_of(Rounds& rounds, const Agreement& agreement, WeightOf&& weight_of) noexcept {
  if (!agreement.weighted) return rounds.size();
  double sum = 0;
  for (int rank = 0; rank < rounds.size(); ++rank) sum += weight_of(rounds.cell(rank));
  return sum;
}

bool all_placed(const Placement& placement) noexcept {
  return placement.in != Placement::kPrivate && placement.out != Placement::kPrivate;
}

double placed_weight(const Cell& cell) noexcept { return placement_of(cell).weight; }
constexpr size_t kWeightAt = kInlineBytes - sizeof(double);
double inline_weight(const Cell& cell) noexcept {
  double weight;
  std::memcpy(&weight, cell.payload + kWeightAt, sizeof weight);
  return weight;
}

Code in_cells(Rounds& rounds, const Call& call) noexcept {
  const Agreement& a = call.agreement;
  Cell& mine = rounds.next();
  call.in.gather(0, call.in.elements(), mine.payload);
  if (a.weighted) std::memcpy(mine.payload + kWeightAt, &call.weight, sizeof call.weight);
  if (const Code code = rounds.meet(call); code != Code::kOk) return code;
  const double divisor = divisor_of(rounds, a, inline_weight);
  if (divisor == 0) return Code::kInvalidArgument;
  const void* in[kMostRanks];
  for (int rank = 0; rank < rounds.size(); ++rank) in[rank] = rounds.cell(rank).payload;
  combine_into(call.out, 0, a.element, a.reduction, {rounds.size(), 1, in, nullptr, call.in.elements(), divisor});
  return Code::kOk;
}

// Every rank has put its array into its staging memory before the meeting, and reads its own at `mine`.
Code in_one_round(Rounds& rounds, const Call& call, const std::byte* mine, double divisor) noexcept {
  const void* in[kMostRanks];
  for (int rank = 0; rank < rounds.size(); ++rank) in[rank] = rounds.stage(rank);
  in[rounds.rank()] = mine;
  combine_into(call.out, 0, call.agreement.element, call.agreement.reduction,
               {rounds.size(), 1, in, nullptr, call.in.elements(), divisor});
  return Code::kOk;
}

// All operands lie in segments: the owner of a slice reads it from all ranks and writes it to all.
Code by_owners(Rounds& rounds, const Call& call, double divisor) noexcept {
  const Agreement& a = call.agreement;
  const Slice slice = slice_of(rounds.rank(), rounds.size(), static_cast<int64_t>(a.count));
  const size_t begin = static_cast<size_t>(slice.begin) * size_of(a.element);
  const void* in[kMostRanks];
  void* out[kMostRanks];
  for (int rank = 0; rank < rounds.size(); ++rank) {
    const Placement placement = placement_of(rounds.cell(rank));
    std::byte* const from = rounds.reach(rank, placement.in, call.in.bytes());
    std::byte* const to = rounds.reach(rank, placement.out, call.in.bytes());
    if (!from || !to) return rounds.fail(Failure::Reason::kMemory, rounds.rank());
    in[rank] = from + begin;
    out[rank] = to + begin;
  }
  failpoint("before write", rounds.rank());
#ifdef GRADRING_FAILPOINTS
  // In pieces, so that a test can stop a rank amid its writes.
  for (int64_t at = slice.begin; at < slice.end; at += kGrain * 16) {
    const int64_t count = std::min(kGrain * 16, slice.end - at);
    find_combine(a.element, a.reduction)({rounds.size(), rounds.size(), in, out, count, divisor});
    for (int rank = 0; rank < rounds.size(); ++rank) {
      in[rank] = static_cast<const std::byte*>(in[rank]) + static_cast<size_t>(count) * size_of(a.element);
      out[rank] = static_cast<std::byte*>(out[rank]) + static_cast<size_t>(count) * size_of(a.element);
    }
    failpoint("within write", rounds.rank());
  }
#else
  find_combine(a.element, a.reduction)({rounds.size(), rounds.size(), in, out, slice.end - slice.begin, divisor});
#endif
  failpoint("after write", rounds.rank());
  return rounds.pass();
}

// Two ranks: each reads the other's piece from staging memory, and its own where it lies.
Code staged_by_each(Rounds& rounds, const Call& call, double divisor) noexcept {
  const Agreement& a = call.agreement;
  const int64_t piece = stage_size(rounds, a.element);
  for (int64_t at = 0; at < call.in.elements(); at += piece) {
    const int64_t count = std::min(piece, call.in.elements() - at);
    rounds.next();
    const std::byte* const mine = put(rounds, call.in, at, count);
    failpoint("staged", rounds.rank());
    rounds.publish();
    if (const Code code = rounds.await_all(); code != Code::kOk) return code;
    const void* in[kMostRanks];
    for (int rank = 0; rank < rounds.size(); ++rank) in[rank] = rounds.stage(rank);
    in[rounds.rank()] = mine;
    combine_into(call.out, at, a.element, a.reduction, {rounds.size(), 1, in, nullptr, count, divisor});
  }
  return Code::kOk;
}

// Reduces a slice, first to a buffer, from there to this rank's array and to its staging memory.
void reduce_to_stage(const Call& call, CombineArguments arguments, int64_t first, std::byte* stage) noexcept {
  const Combine reduce = find_combine(call.agreement.element, call.agreement.reduction);
  const size_t element = size_of(call.agreement.element);
  alignas(64) std::byte buffer[4096];
  void* to = buffer;
  const void* in[kMostRanks];
  std::copy(arguments.in, arguments.in + arguments.inputs, in);
  arguments.in = in;
  arguments.out = &to;
  const int64_t most = static_cast<int64_t>(sizeof buffer / element), all = arguments.count;
  for (int64_t at = 0; at < all; at += most) {
    arguments.count = std::min(most, all - at);
    const size_t bytes = static_cast<size_t>(arguments.count) * element;
    reduce(arguments);
    write_stage(stage + static_cast<size_t>(at) * element, buffer, bytes);
    call.out.scatter(first + at, arguments.count, buffer);
    for (int i = 0; i < arguments.inputs; ++i) in[i] = static_cast<const std::byte*>(in[i]) + bytes;
  }
}

// More ranks: the owner of a slice of the piece reduces it to its own staging memory, from where all others copy it. The
// halves alternate with the pieces, each of which takes two rounds; a last round ends the reading of the last piece.
Code staged_by_owners(Rounds& rounds, const Call& call, double divisor) noexcept {
  const Agreement& a = call.agreement;
  const int ranks = rounds.size(), me = rounds.rank();
  const int64_t piece = stage_size(rounds, a.element);
  uint32_t half = 0;
  for (int64_t at = 0; at < call.in.elements(); at += piece, half ^= 1) {
    const int64_t count = std::min(piece, call.in.elements() - at);
    rounds.next();
    const std::byte* const own = stage_elements(call.in, at, count, rounds.control().stage(me, half), rounds.scratch());
    failpoint("staged", me);
    rounds.publish();
    if (const Code code = rounds.await_all(); code != Code::kOk) return code;
    const Slice mine = slice_of(me, ranks, count);
    const void* in[kMostRanks];
    for (int rank = 0; rank < ranks; ++rank)
      in[rank] = (rank == me ? own : rounds.control().stage(rank, half)) +
                 static_cast<size_t>(mine.begin) * size_of(a.element);
    reduce_to_stage(call, {ranks, 1, in, nullptr, mine.end - mine.begin, divisor}, at + mine.begin,
                    rounds.control().stage(me, half) + static_cast<size_t>(mine.begin) * size_of(a.element));
    failpoint("reduced", me);
    if (const Code code = rounds.pass(); code != Code::kOk) return code;
    for (int rank = 0; rank < ranks; ++rank) {
      if (rank == me) continue;
      const Slice slice = slice_of(rank, ranks, count);
      call.out.scatter(at + slice.begin, slice.end - slice.begin,
                       rounds.control().stage(rank, half) + static_cast<size_t>(slice.begin) * size_of(a.element));
    }
  }
  return rounds.pass();
}

}  // namespace

void combine_into(const Operand& out, int64_t first, Element element, Reduction reduction,
                  CombineArguments arguments) noexcept {
  const Combine reduce = find_combine(element, reduction);
  arguments.outputs = 1;
  if (out.contiguous()) {
    void* to = out.data() + static_cast<size_t>(first) * size_of(element);
    arguments.out = &to;
    return reduce(arguments);
  }
  alignas(64) std::byte piece[4096];
  void* to = piece;
  arguments.out = &to;
  const int64_t most = static_cast<int64_t>(sizeof piece / size_of(element)), all = arguments.count;
  const void* in[kMostRanks];
  for (int64_t at = 0; at < all; at += most) {
    const size_t offset = static_cast<size_t>(at) * size_of(element);
    CombineArguments part = arguments;
    part.count = std::min(most, all - at);
    for (int i = 0; i < arguments.inputs; ++i) in[i] = static_cast<const std::byte*>(arguments.in[i]) + offset;
    part.in = in;
    reduce(part);
    out.scatter(first + at, part.count, piece);
  }
}

Code all_reduce(Rounds& rounds, const Call& call) noexcept {
  const Agreement& a = call.agreement;
  const size_t bytes = call.in.bytes();
  if (bytes <= (a.weighted ? kWeightAt : kInlineBytes)) return in_cells(rounds, call);
  place(rounds, call, true, true);
  const bool small = bytes <= kOneRoundBytes && bytes <= rounds.control().stage_bytes();
  const std::byte* mine = nullptr;
  if (small && !all_placed(placement_of(rounds.cell(rounds.rank()))))
    mine = put(rounds, call.in, 0, call.in.elements());
  if (const Code code = rounds.meet(call); code != Code::kOk) return code;
  const double divisor = divisor_of(rounds, a, placed_weight);
  if (divisor == 0) return Code::kInvalidArgument;
  int placed = 0;
  for (int rank = 0; rank < rounds.size(); ++rank) placed += all_placed(placement_of(rounds.cell(rank)));
  const bool shared = placed == rounds.size();
  if (small && placed == 0) return in_one_round(rounds, call, mine, divisor);
  if (shared) return by_owners(rounds, call, divisor);
  return rounds.size() <= 2 ? staged_by_each(rounds, call, divisor) : staged_by_owners(rounds, call, divisor);
}

}  // namespace gradring
