#include "ops/reduce_update/reduce_update.h"

#include <limits>

#include "ops/combine/combine.h"
#include "ops/work.h"

namespace gradring {

void sum_planes(const Lane& lane, const SumPlanes& g) noexcept {
  constexpr int64_t kMostRanks = 256;
  const Range part = split(lane, g.count, kFlatGrain);
  const int64_t item = static_cast<int64_t>(size_of(g.dtype));
  if (part.begin == part.end || g.ranks > kMostRanks) return;
  const void* in[kMostRanks];
  for (int64_t r = 0; r < g.ranks; ++r) in[r] = g.planes + (r * g.columns + g.begin + part.begin) * item;
  void* out[] = {g.sum + part.begin * item};
  CombineArguments arguments;
  arguments.inputs = static_cast<int>(g.ranks);
  arguments.outputs = 1;
  arguments.in = in;
  arguments.out = out;
  arguments.count = part.end - part.begin;
  const Element element = g.dtype == Dtype::kFloat32 ? Element::kFloat32 : Element::kFloat64;
  find_combine(element, Reduction::kSum)(arguments);
}

Verdict verdict_of(const Meeting& meeting) noexcept {
  Verdict verdict;
  for (int r = 0, count = meeting.size(); r < count; ++r) {
    const Brought& brought = meeting.of(r);
    verdict.loss_sum += brought.loss_sum;
    verdict.loss_weight += brought.loss_weight;
    verdict.correct += brought.correct;
    verdict.bound += brought.largest;
    if (verdict.fault == Fault::kNone) verdict.fault = static_cast<Fault>(brought.fault);
  }
  return verdict;
}

bool may_overflow(double bound, Dtype dtype) noexcept {
  const double most = dtype == Dtype::kFloat32 ? static_cast<double>(std::numeric_limits<float>::max())
                                               : std::numeric_limits<double>::max();
  return !(bound < most / 4);
}

}  // namespace gradring
