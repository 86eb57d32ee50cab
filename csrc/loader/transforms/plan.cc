#include "loader/transforms/plan.h"

#include <algorithm>

#include "loader/transforms/compile.h"
#include "runtime/clock.h"
#include "runtime/round_up.h"

namespace gradring {

namespace {

// Keeps the loader's random numbers apart from other uses of the same seed.
constexpr uint32_t kLoaderDomain = 0x4C000000;

}  // namespace

PhiloxWords random_words(const RowKey& key, RandomPlace place) noexcept {
  const auto sample = static_cast<uint64_t>(key.sample);
  return philox({static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32), static_cast<uint32_t>(key.epoch),
                 kLoaderDomain + (place.field << 12) + place.index},
                static_cast<uint32_t>(key.seed),
                static_cast<uint32_t>(key.seed >> 32) ^ static_cast<uint32_t>(key.epoch >> 32));
}

RowPlan::RowPlan(const FieldSpec& input, const std::vector<TransformStep>& steps, int field) {
  CompiledPlan compiled = compile_plan(input, steps, field);
  stages_ = std::move(compiled.stages);
  names_ = std::move(compiled.names);
  output_ = std::move(compiled.output);
  between_bytes_ = round_up(compiled.longest_between);
  for (const auto& stage : stages_) stage_bytes_ = std::max(stage_bytes_, round_up(stage->scratch_bytes()));
}

RowPlan::~RowPlan() = default;

Status RowPlan::run(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch,
                    uint64_t* stage_ns) const noexcept {
  if (stage_ns != nullptr) return run_timed(from, to, key, scratch, stage_ns);
  std::byte* own = scratch + 2 * between_bytes_;
  const size_t last = stages_.size() - 1;
  for (size_t i = 0; i < last; ++i) {
    std::byte* between = scratch + (i % 2) * between_bytes_;
    if (Status status = stages_[i]->run(from, between, key, own); !status.ok()) return status;
    from = between;
  }
  return stages_[last]->run(from, to, key, own);
}

Status RowPlan::run_timed(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch,
                          uint64_t* ns) const noexcept {
  std::byte* own = scratch + 2 * between_bytes_;
  const size_t last = stages_.size() - 1;
  int64_t begin = monotonic_ns();
  for (size_t i = 0; i <= last; ++i) {
    std::byte* target = i == last ? to : scratch + (i % 2) * between_bytes_;
    if (Status status = stages_[i]->run(from, target, key, own); !status.ok()) return status;
    from = target;
    const int64_t end = monotonic_ns();
    ns[i] += static_cast<uint64_t>(end - begin);
    begin = end;
  }
  return {};
}

}  // namespace gradring
