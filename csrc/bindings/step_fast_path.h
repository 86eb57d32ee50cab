// The fast path of a training step: for calls that take a few microseconds in all.
#pragma once

#include "bindings/bindings.h"
#include "program/engine.h"

namespace gradring {

// The steps that ranks take together, as one of them sees them.
class RankStep {
 public:
  virtual ~RankStep() = default;
  virtual bool may_step() const noexcept = 0;  // the parameters are whole
  // Takes one step, without the GIL. Returns false if the step failed or was interrupted.
  virtual bool take(Engine& engine, Executor& executor, Batch batch, const double* rates,
                    int64_t rate_columns) noexcept = 0;
};

// The steps of a Ranks object.
RankStep& rank_step_of(const py::object& ranks);

// Raises RuntimeError if another thread is using the engine, or if the engine belongs to the parent of this process.
void enter_or_throw(Engine& engine, bool writes);

void bind_step_fast_path(py::module_& m);

}  // namespace gradring
