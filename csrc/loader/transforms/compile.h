// Turns a field's list of transforms into stages.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "loader/transforms/plan.h"

namespace gradring {

struct CompiledPlan {
  std::vector<std::unique_ptr<const Stage>> stages;  // at least one
  std::vector<std::string> names;  // the names of the stages: "Scale", or of a fused one "RandomCrop+Cast+Normalize"
  FieldSpec output;
  size_t longest_between = 0;  // the size in bytes of the longest row between two stages
};

// Throws Error.
CompiledPlan compile_plan(const FieldSpec& input, const std::vector<TransformStep>& steps, int field);

}  // namespace gradring
