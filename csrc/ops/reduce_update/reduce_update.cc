#include "ops/reduce_update/reduce_update.h"

#include <algorithm>
#include <limits>

#include "ops/combine/combine.h"
#include "ops/work.h"

namespace gradring {

namespace {

constexpr int64_t kMostRanks = 256;
constexpr int64_t kTreePart = 256;  // elements that a tree sums at once, so that its inner sums stay in the cache

struct Tree {
  const SumPlanes& g;
  Combine add;
  int64_t item;

  const std::byte* row(int64_t r, int64_t at) const noexcept { return g.planes + (r * g.columns + at) * item; }

  // Sums n columns of `rows` rows into `out`. No part of the sum is written there before all rows have been read, so `out` may
  // lie in one of them.
  void sum(int64_t first, int64_t rows, int64_t at, int64_t n, std::byte* out) const noexcept {
    alignas(64) std::byte rooms[2][kTreePart * sizeof(double)];
    const int64_t left = rows > 1 ? left_of_tree(rows) : 0;
    const void* in[2] = {part(first, left, at, n, rooms[0]), part(first + left, rows - left, at, n, rooms[1])};
    if (left == 0) in[0] = in[1];
    void* outs[] = {out};
    CombineArguments arguments;
    arguments.inputs = left == 0 ? 1 : 2;
    arguments.outputs = 1;
    arguments.in = in;
    arguments.out = outs;
    arguments.count = n;
    add(arguments);
  }

 private:
  const std::byte* part(int64_t first, int64_t rows, int64_t at, int64_t n, std::byte* room) const noexcept {
    if (rows <= 1) return row(first, at);
    sum(first, rows, at, n, room);
    return room;
  }
};

}  // namespace

void sum_planes(const Lane& lane, const SumPlanes& g) noexcept {
  const Range part = split(lane, g.count, kFlatGrain);
  const int64_t item = static_cast<int64_t>(size_of(g.dtype));
  if (part.begin == part.end || g.ranks > kMostRanks) return;
  const Element element = g.dtype == Dtype::kFloat32 ? Element::kFloat32 : Element::kFloat64;
  if (g.tree) {
    const Tree tree{g, find_combine(element, Reduction::kSum), item};
    for (int64_t at = part.begin; at < part.end; at += kTreePart)
      tree.sum(0, g.ranks, g.begin + at, std::min(kTreePart, part.end - at), g.sum + at * item);
    return;
  }
  const void* in[kMostRanks];
  for (int64_t r = 0; r < g.ranks; ++r) in[r] = g.planes + (r * g.columns + g.begin + part.begin) * item;
  void* out[] = {g.sum + part.begin * item};
  CombineArguments arguments;
  arguments.inputs = static_cast<int>(g.ranks);
  arguments.outputs = 1;
  arguments.in = in;
  arguments.out = out;
  arguments.count = part.end - part.begin;
  find_combine(element, Reduction::kSum)(arguments);
}

MeetingTotals totals_of(const Meeting& meeting) noexcept {
  MeetingTotals totals;
  const auto brought_by = [&](int64_t r) -> const Brought& { return meeting.of(static_cast<int>(r)); };
  totals.loss_sum = tree_sum(0, meeting.size(), [&](int64_t r) { return brought_by(r).loss_sum; });
  totals.loss_weight = tree_sum(0, meeting.size(), [&](int64_t r) { return brought_by(r).loss_weight; });
  for (int r = 0, count = meeting.size(); r < count; ++r) {
    const Brought& brought = meeting.of(r);
    totals.correct += brought.correct;
    totals.bound += brought.largest;
    if (totals.fault == Fault::kNone) totals.fault = static_cast<Fault>(brought.fault);
  }
  return totals;
}

bool may_overflow(double bound, Dtype dtype) noexcept {
  const double most = dtype == Dtype::kFloat32 ? static_cast<double>(std::numeric_limits<float>::max())
                                               : std::numeric_limits<double>::max();
  return !(bound < most / 4);
}

}  // namespace gradring
