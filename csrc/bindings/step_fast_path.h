// The fast path of a training step: for calls that take a few microseconds in all.
#pragma once

#include <memory>

#include "bindings/bindings.h"
#include "program/engine.h"

namespace gradring {

// The steps that ranks take together, as one of them sees them; or the replicas of this process.
class RankStep {
 public:
  virtual ~RankStep() = default;
  // Whether the parameters are whole, and there are programs for batches of `rows` rows.
  virtual bool may_step(Engine& engine, Mode mode, int64_t rows) noexcept = 0;
  // Takes one step, without the GIL. Returns false if the step failed or was interrupted.
  virtual bool take(Engine& engine, Batch batch, Mode mode, const double* rates, int64_t rate_columns) noexcept = 0;
};

// The steps of a Ranks object, of a Replicas object, or of a pair of them, which must live longer.
std::shared_ptr<RankStep> rank_step_of(const py::object& ranks);

// Raises RuntimeError if another thread is using the engine, or if the engine belongs to the parent of this process.
void enter_or_throw(Engine& engine, bool writes);

void bind_step_fast_path(py::module_& m);

}  // namespace gradring
