#include <algorithm>
#include <cstring>

#include "comm/collectives.h"

namespace gradring {

namespace {

// Up to this many bytes, a rank whose array is not in its data segment copies it to its staging memory before the first round.
// If all ranks have done so, each reduces all arrays by itself, and no other round is needed.
constexpr size_t kOneRoundBytes = size_t{16} << 10;
// Slices begin at multiples of this many elements, so that no cache line has two owners.
constexpr int64_t kGrain = 64;

// Two ranks exchange an array in four pieces, each at least this large, and at most as large as a staging half. The copy
// of the first piece to staging memory, and of the last one from it, overlap with nothing.
constexpr size_t kLeastPieceBytes = size_t{64} << 10;

struct Slice {
  int64_t begin, end;
};

Slice slice_of(int rank, int ranks, int64_t count) noexcept {
  const int64_t grains = (count + kGrain - 1) / kGrain;
  return {std::min(grains * rank / ranks * kGrain, count), std::min(grains * (rank + 1) / ranks * kGrain, count)};
}

// The sum of the weights, in rank order. Without weights, it is the number of ranks.
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
  failpoint("before write", rounds.rank());
  combine_into(call.out, 0, a.element, a.reduction, {rounds.size(), 1, in, nullptr, call.in.elements(), divisor});
  failpoint("after write", rounds.rank());
  return Code::kOk;
}

// Before this round, every rank put its array into its staging memory. A rank reads its own array at `mine` instead.
Code in_one_round(Rounds& rounds, const Call& call, const std::byte* mine, double divisor) noexcept {
  const void* in[kMostRanks];
  for (int rank = 0; rank < rounds.size(); ++rank) in[rank] = rounds.stage(rank);
  in[rounds.rank()] = mine;
  failpoint("before write", rounds.rank());
  combine_into(call.out, 0, call.agreement.element, call.agreement.reduction,
               {rounds.size(), 1, in, nullptr, call.in.elements(), divisor});
  failpoint("after write", rounds.rank());
  rounds.end_turn();
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
  // Reduce in pieces, so that a test can stop a rank in the middle of its writes.
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
  return rounds.pass_after_access();
}

// A group of one rank: there is no other rank to wait for.
Code alone(Rounds& rounds, const Call& call, double divisor) noexcept {
  const Agreement& a = call.agreement;
  const int64_t piece = stage_size(rounds, a.element);
  for (int64_t at = 0; at < call.in.elements(); at += piece) {
    const int64_t count = std::min(piece, call.in.elements() - at);
    const void* const from = in_order(call.in, at, count, rounds.scratch());
    combine_into(call.out, at, a.element, a.reduction, {1, 1, &from, nullptr, count, divisor});
  }
  return Code::kOk;
}

int64_t exchanged_piece(Rounds& rounds, const Call& call) noexcept {
  const auto least = static_cast<int64_t>(kLeastPieceBytes / size_of(call.agreement.element));
  const int64_t quarter = (call.in.elements() / 4 + kGrain - 1) / kGrain * kGrain;
  return std::min(std::max(quarter, least), stage_size(rounds, call.agreement.element));
}

// Between two ranks, each rank reads the other's piece from staging memory, and writes its own next piece, of `next`
// elements, to the place that it has just read. So a line of staging memory carries data each time that it moves from
// one core to the other.
void exchange(Rounds& rounds, const Call& call, int64_t at, int64_t count, int64_t next, double divisor) noexcept {
  const Agreement& a = call.agreement;
  const size_t element = size_of(a.element);
  const int me = rounds.rank();
  alignas(64) std::byte own[4096], refill[4096];
  // An array with gaps between its elements is copied block by block through these buffers.
  const int64_t most = call.in.contiguous() ? count : static_cast<int64_t>(sizeof own / element);
  for (int64_t done = 0; done < count;) {
    const bool refills = done < next;
    const int64_t some = std::min(most, (refills ? next : count) - done);
    std::byte* const theirs = rounds.stage(1 - me) + static_cast<size_t>(done) * element;
    const void* in[2];
    in[me] = in_order(call.in, at + done, some, own);
    in[1 - me] = theirs;
    CombineArguments arguments{2, 1, in, nullptr, some, divisor};
    if (refills) {
      arguments.next = in_order(call.in, at + count + done, some, refill);
      arguments.room = theirs;
    }
    combine_into(call.out, at + done, a.element, a.reduction, arguments);
    done += some;
  }
  rounds.end_turn();
}

// The first piece lies in staging memory already. `met` says whether a round has ended since it was written.
Code staged_by_two(Rounds& rounds, const Call& call, bool met, double divisor) noexcept {
  const int64_t piece = exchanged_piece(rounds, call), all = call.in.elements();
  int64_t count = std::min(piece, all);
  for (int64_t at = 0; at < all;) {
    if (at > 0 || !met) {
      rounds.next();
      failpoint("staged", rounds.rank());
      rounds.publish();
      if (const Code code = rounds.await_all(); code != Code::kOk) return code;
    }
    const int64_t next = std::min(piece, all - at - count);
    exchange(rounds, call, at, count, next, divisor);
    at += count;
    count = next;
  }
  return Code::kOk;
}

// Between more than two ranks, an array moves in pieces. A piece has one slice per rank, all of one width; each rank owns one.
struct Piece {
  int64_t at = 0, count = 0, width = 0;

  Slice slice(int rank) const noexcept {
    return {at + std::min(rank * width, count), at + std::min((rank + 1) * width, count)};
  }
};

// How an array is cut, and where the slices of a piece lie in a half of a rank's staging memory: a place for each rank.
class Cut {
 public:
  Cut(Rounds& rounds, const Call& call) noexcept
      : ranks_(rounds.size()),
        all_(call.in.elements()),
        element_(size_of(call.agreement.element)),
        place_bytes_(rounds.control().stage_bytes() / static_cast<size_t>(ranks_)) {
    place_bytes_ -= place_bytes_ % (place_bytes_ < kLine ? element_ : kLine);
    // Rounds of many ranks take long where they share cores, so pieces are as large as they can be.
    most_ = static_cast<int64_t>(place_bytes_ / element_) * ranks_;
  }

  int64_t pieces() const noexcept { return (all_ + most_ - 1) / most_; }
  Piece piece(int64_t number) const noexcept {  // empty before the first and after the last
    if (number < 0 || number >= pieces()) return {};
    const int64_t at = number * most_, count = std::min(most_, all_ - at);
    const auto line = static_cast<int64_t>(kLine / element_);
    const int64_t width = ((count + ranks_ - 1) / ranks_ + line - 1) / line * line;
    return {at, count, std::min(width, most_ / ranks_)};
  }
  size_t place(int rank) const noexcept { return static_cast<size_t>(rank) * place_bytes_; }

 private:
  static constexpr size_t kLine = 64;
  int ranks_;
  int64_t all_;
  size_t element_, place_bytes_;
  int64_t most_ = 0;
};

// Takes the results of one piece from this rank's places, and puts its elements of a later piece there. The lines have come
// to this core with the results, so they need not come again to be written.
void take_and_put(Rounds& rounds, const Call& call, const Cut& cut, const Piece& taken, const Piece& next,
                  std::byte* half) noexcept {
  const auto block = static_cast<int64_t>(4096 / size_of(call.agreement.element));
  for (int rank = 0; rank < rounds.size(); ++rank) {
    if (rank == rounds.rank()) continue;
    std::byte* place = half + cut.place(rank);
    Slice from = taken.slice(rank), to = next.slice(rank);
    while (from.begin < from.end || to.begin < to.end) {
      const int64_t take = std::min(block, from.end - from.begin), put = std::min(block, to.end - to.begin);
      call.out.scatter(from.begin, take, place);
      call.in.gather(to.begin, put, place);
      from.begin += take;
      to.begin += put;
      place += 4096;
    }
  }
}

// Reduces the slice of a piece that this rank owns, and leaves the result where the others have put their elements.
void reduce_own_slice(Rounds& rounds, const Call& call, const Cut& cut, const Piece& piece, uint32_t turn,
                      double divisor) noexcept {
  const Agreement& a = call.agreement;
  const int me = rounds.rank();
  const Slice mine = piece.slice(me);
  const size_t element = size_of(a.element);
  alignas(64) std::byte own[4096], result[4096];
  const bool whole = call.in.contiguous() && call.out.contiguous();
  const int64_t most = whole ? mine.end - mine.begin : static_cast<int64_t>(sizeof own / element);
  for (int64_t at = mine.begin; at < mine.end; at += most) {
    const int64_t count = std::min(most, mine.end - at);
    const void* in[kMostRanks];
    void* out[kMostRanks];
    for (int rank = 0; rank < rounds.size(); ++rank) {
      std::byte* const place =
          rounds.stage(rank, turn) + cut.place(me) + static_cast<size_t>(at - mine.begin) * element;
      in[rank] = out[rank] = place;
    }
    in[me] = in_order(call.in, at, count, own);
    out[me] = call.out.contiguous() ? call.out.data() + static_cast<size_t>(at) * element : result;
    find_combine(a.element, a.reduction)({rounds.size(), rounds.size(), in, out, count, divisor});
    if (out[me] == result) call.out.scatter(at, count, result);
  }
}

// In step t each rank has put its elements of piece t into the places of the owners of its slices. In step t + 1 an owner
// reduces its slice, and leaves the result in the same places; in step t + 2 the others take it from there, and put their
// elements of piece t + 2. So a place belongs to one of two ranks at a time, and its lines carry data each time that they
// move from one core to another. The two halves alternate. Each round works on three pieces, so there is one round more than
// there are pieces. The elements of the first piece lie in their places already. `met` says whether the ranks have met since.
Code staged_by_owners(Rounds& rounds, const Call& call, bool met, double divisor) noexcept {
  const Cut cut(rounds, call);
  const int64_t pieces = cut.pieces();
  for (int64_t step = 1; step <= pieces + 1; ++step) {
    if (step > 1 || !met) {
      rounds.next();
      failpoint("staged", rounds.rank());
      rounds.publish();
      if (const Code code = rounds.await_all(); code != Code::kOk) return code;
    }
    const auto turn = static_cast<uint32_t>(step);
    reduce_own_slice(rounds, call, cut, cut.piece(step - 1), turn - 1, divisor);
    failpoint("reduced", rounds.rank());
    take_and_put(rounds, call, cut, cut.piece(step - 2), cut.piece(step), rounds.stage(rounds.rank(), turn));
  }
  rounds.end_turn(static_cast<uint32_t>(pieces));
  return Code::kOk;
}

// Stages the first piece before the ranks meet, when no rank knows yet whether the others stage, too.
void stage_first_piece(Rounds& rounds, const Call& call) noexcept {
  if (rounds.size() == 2) {
    call.in.gather(0, std::min(exchanged_piece(rounds, call), call.in.elements()), rounds.stage(rounds.rank()));
  } else {
    const Cut cut(rounds, call);
    take_and_put(rounds, call, cut, {}, cut.piece(0), rounds.stage(rounds.rank()));
  }
}

}  // namespace

void combine_into(const CommOperand& out, int64_t first, Element element, Reduction reduction,
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
    if (arguments.next) {
      part.next = static_cast<const std::byte*>(arguments.next) + offset;
      part.room = static_cast<std::byte*>(arguments.room) + offset;
    }
    reduce(part);
    out.scatter(first + at, part.count, piece);
  }
}

Code all_reduce(Rounds& rounds, const Call& call) noexcept {
  const Agreement& a = call.agreement;
  const size_t bytes = call.in.bytes();
  const int ranks = rounds.size();
  if (bytes <= (a.weighted ? kWeightAt : kInlineBytes)) return in_cells(rounds, call);
  place(rounds, call, true, true);
  const bool small = bytes <= kOneRoundBytes && bytes <= rounds.control().stage_bytes();
  const std::byte* mine = nullptr;
  if (!all_placed(placement_of(rounds.cell(rounds.rank())))) {
    if (ranks > 2 && small) {
      mine = put(rounds, call.in, 0, call.in.elements());
    } else if (ranks > 1) {
      stage_first_piece(rounds, call);
    }
  }
  if (const Code code = rounds.meet(call); code != Code::kOk) return code;
  const double divisor = divisor_of(rounds, a, placed_weight);
  if (divisor == 0) return Code::kInvalidArgument;
  int placed = 0;
  for (int rank = 0; rank < ranks; ++rank) placed += all_placed(placement_of(rounds.cell(rank)));
  if (ranks == 1) return alone(rounds, call, divisor);
  if (placed == ranks) return by_owners(rounds, call, divisor);
  rounds.conceal();
  if (ranks > 2 && small && placed == 0) return in_one_round(rounds, call, mine, divisor);
  const bool staged = placed == 0;
  if (!staged) stage_first_piece(rounds, call);
  return ranks == 2 ? staged_by_two(rounds, call, staged, divisor) : staged_by_owners(rounds, call, staged, divisor);
}

}  // namespace gradring
