// Ops that read ids, some of them out of range, with random shapes, alignments and options.
#include <vector>

#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"

namespace gradring::testing {

namespace {

void embedding(Random& random, Trial& t) {
  t.compare = Compare::kBits;
  const int64_t rows = between(random, 0, 20);
  const bool bad = rows == 0 || chance(random, 4);
  std::vector<int64_t> shape{edge(random, 130)};
  if (chance(random, 2)) shape.push_back(between(random, 0, 3));
  t.give(random, "ids", shape, chance(random, 2) ? Dtype::kInt32 : Dtype::kInt64, bad ? -1 : 0, bad ? rows : rows - 1);
  t.give(random, "table", {rows, edge(random, 70)});
  want_some(random, t, {"fault"});
  t.complete(random);
}

void embedding_vjp(Random& random, Trial& t) {
  const bool hot = chance(random, 6);
  const int64_t rows = hot ? 2 : edge(random, 600);
  const bool bad = rows == 0 || chance(random, 4);
  const int64_t count = hot ? between(random, 1200, 3000) : edge(random, 300);
  t.give(random, "ids", {count}, chance(random, 2) ? Dtype::kInt32 : Dtype::kInt64, bad ? -1 : 0,
         bad ? rows : rows - 1);
  t.give(random, "dy", {count, hot ? 3 : edge(random, 70)});
  t.set("rows", static_cast<double>(rows));
  want_some(random, t, {"fault"});
  t.complete(random);
}

void check_ids(Random& random, Trial& t) {
  const Dtype dtype = chance(random, 2) ? Dtype::kInt32 : Dtype::kInt64;
  t.give(random, "ids", {between(random, 1, 9), between(random, 1, 4)}, dtype, -5, 5);
  const auto count = static_cast<int64_t>(t.at("ids").values.size());
  t.give(random, "fault", {1}, Dtype::kInt64, -1, count - 1);
  t.complete(random);
}

constexpr Entry kOps[] = {
    {"check_ids", check_ids},
    {"embedding", embedding},
    {"embedding_vjp", embedding_vjp},
};

}  // namespace

Entries index_ops() { return kOps; }

TEST_CASE("CUDA kernels of embeddings agree with their references, with the same bits in every schedule") {
  check_entries(kOps);
}

}  // namespace gradring::testing
