// gather: writes rows of a column into a batch, one after the other, transformed or as they are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "loader/column.h"
#include "loader/source.h"
#include "loader/sources/memory_column.h"
#include "loader/transforms/plan.h"
#include "ops/cast/cast.h"

namespace gradring {

// Scratch bytes that gather needs; plan may be null.
size_t gather_scratch(const Column& column, const RowPlan* plan) noexcept;

// stage_ns: null, or where to add the time of each of the plan's stages. The first stage reads the rows, if the column can
// show them.
Status gather(const Column& column, const RowPlan* plan, const ReadRequest& request, std::byte* to, int64_t* failed_row,
              uint64_t* stage_ns = nullptr) noexcept;

// Writes rows of an array whose rows can be read where they lie (Column::begin). `cast` converts each to a row of
// `row_bytes` bytes; null: it is copied. Nothing can fail and no scratch is needed, so the step's own lanes do this.
void gather_cast(const MemoryColumn& column, Cast cast, int64_t row_bytes, const ReadRequest& request,
                 std::byte* to) noexcept;

}  // namespace gradring
