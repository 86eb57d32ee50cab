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

// How many bytes of scratch memory gather needs. `plan` may be null.
size_t gather_scratch(const Column& column, const RowPlan* plan) noexcept;

// `stage_ns` is null, or where gather adds the time of each of the plan's stages. The time of the first stage includes reading
// the rows, if the column lets them be read where they lie.
Status gather(const Column& column, const RowPlan* plan, const ReadRequest& request, std::byte* to, int64_t* failed_row,
              uint64_t* stage_ns = nullptr) noexcept;

// Writes rows of an array whose rows can be read where they lie (Column::begin). `cast` converts each row to one of `row_bytes`
// bytes; if it is null, rows are copied. This cannot fail and needs no scratch memory, so the lanes of a step call it.
void gather_cast(const MemoryColumn& column, Cast cast, int64_t row_bytes, const ReadRequest& request,
                 std::byte* to) noexcept;

}  // namespace gradring
