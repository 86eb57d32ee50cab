#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "loader/column_source.h"
#include "loader/pipeline.h"
#include "loader/sources/memory_column.h"
#include "runtime/count_allocations.h"

#if COUNTS_ALLOCATIONS

namespace gradring {

namespace {

// Counts the allocations of one pass over `batches` batches of 8 rows.
long allocations_of_pass(Pipeline& pipeline, int64_t batches) {
  const long before = allocations.load(std::memory_order_relaxed);
  pipeline.start({.samples = batches * 8, .batch_size = 8, .shuffle = true}, false);
  Delivery got;
  int64_t seen = 0;
  while (pipeline.next(&got, deadline_in(std::chrono::seconds(20))) == Delivered::kBatch) {
    pipeline.slots()->give(got.slot);
    ++seen;
  }
  const long after = allocations.load(std::memory_order_relaxed);
  CHECK(seen == batches);
  return after - before;
}

}  // namespace

TEST_CASE("a pass allocates nothing for its batches") {
  constexpr int64_t kRows = 40000;
  const std::vector<float> x(kRows * 3, 1.0f);
  const ArrayLayout layout{reinterpret_cast<const std::byte*>(x.data()), {12, 4}, false};
  const auto column = std::make_shared<MemoryColumn>(FieldSpec{"x", Dtype::kFloat32, {3}}, kRows, layout, nullptr);
  const auto source = std::make_shared<ColumnSource>(std::vector<std::shared_ptr<const Column>>{column});
  for (const uint32_t workers : {0u, 1u, 3u}) {
    PipelineOptions options;
    options.batch_size = 8;
    options.workers = options.active = workers;
    Pipeline pipeline(source, source->fields(), options);
    allocations_of_pass(pipeline, kRows / 8);  // the threads start, and make what they keep
    CHECK(allocations_of_pass(pipeline, kRows / 8) == allocations_of_pass(pipeline, 20));
  }
  // Checks that the counter counts.
  const long before = allocations.load(std::memory_order_relaxed);
  static void* volatile kept;  // volatile, because a compiler may leave out an allocation without effect
  kept = std::malloc(100);
  std::free(kept);
  CHECK(allocations.load(std::memory_order_relaxed) > before);
}

}  // namespace gradring

#endif
