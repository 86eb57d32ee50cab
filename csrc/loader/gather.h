// gather: rows of a column, transformed or as they are, one after the other into a batch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "loader/column.h"
#include "loader/source.h"
#include "loader/transforms/plan.h"

namespace gradring {

// Scratch bytes that gather needs; plan may be null.
size_t gather_scratch(const Column& column, const RowPlan* plan) noexcept;

// stage_ns: null, or where to add the time of each of the plan's stages. The first stage reads the rows, if the column can
// show them.
Status gather(const Column& column, const RowPlan* plan, const ReadRequest& request, std::byte* to, int64_t* failed_row,
              uint64_t* stage_ns = nullptr) noexcept;

}  // namespace gradring
