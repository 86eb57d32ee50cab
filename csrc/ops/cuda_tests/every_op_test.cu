// Every op that has a CUDA kernel: none is forgotten, the trials reach all of it, and every CUDA call fails once. The results of the
// kernels are compared theme by theme, in *_ops_test.cu.
#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "ops/cuda_kernels.h"
#include "ops/cuda_tests/trials.h"
#include "ops/register_cuda.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

std::vector<Entry> every_entry() {
  register_all_cuda_kernels();
  std::vector<Entry> all;
  for (const Entries theme : {batch_norm_ops(), element_ops(), index_ops(), loss_ops(), optimizer_ops(), product_ops(),
                              row_ops(), step_ops()}) {
    all.insert(all.end(), theme.begin(), theme.end());
  }
  return all;
}

// The ops that have no CUDA kernel, and the reasons.
constexpr const char* kWithout[] = {
    // They call functions outside the program, usually in Python, which compute on the CPU.
    "function", "function_loss", "function_vjp",
    // With these, the ranks of one host meet and add planes in the host's memory.
    "meet", "sum_planes", "sum_planes_in_place", "prove_sums", "meet_squares", "end_update", "clear_plane",
    "begin_part", "keep_losses", "merge_moments",
    // By these, workers on the CPU share parameters in the host's memory.
    "read_shared", "read_shared_rows", "take_shared", "give_shared", "push_sgd", "push_sgd_rows"};

}  // namespace

TEST_CASE("every op of the registry has a CUDA kernel, which is tried here, or a reason to have none") {
  std::set<std::string> tried, without(std::begin(kWithout), std::end(kWithout));
  for (const Entry& entry : every_entry()) tried.insert(entry.op);
  for (const OpSchema* op : all_ops()) {
    INFO(std::string(op->name));
    const bool has_kernel = static_cast<bool>(cuda_kernel(*op)), is_tried = tried.count(op->name) == 1;
    CHECK(has_kernel != (without.count(op->name) == 1));
    CHECK(has_kernel == is_tried);
  }
}

TEST_CASE("the trials give every operand of every op, and every dtype, choice and flag") {
  Random random(20240611);
  for (const Entry& entry : every_entry()) {
    std::set<std::string> missing, seen;
    for (int turn = 0; turn < 300; ++turn) {
      Trial t(entry.op, dtype_of(entry, turn));
      entry.make(random, t);
      for (size_t i = 0; i < t.operands.size(); ++i) {
        if (t.operands[i].dtype == kNoDtype) continue;
        seen.insert(t.op->operands[i].name);
        seen.insert(std::string(t.op->operands[i].name) + " " + dtype_name(t.operands[i].dtype));
      }
      for (size_t i = 0; i < t.attributes.size(); ++i) {
        seen.insert(std::string(t.op->attributes[i].name) + "=" + std::to_string(t.attributes[i].integer));
      }
    }
    const OpSchema& op = *find_schema(entry.op);
    for (const Operand& each : op.operands) {
      if (seen.count(each.name) == 0) missing.insert(each.name);
      for (int i = 0; i < kDtypes; ++i) {
        const std::string name = std::string(each.name) + " " + dtype_name(static_cast<Dtype>(i));
        const bool allowed = each.step == StepField::kNone && (each.dtypes & only(static_cast<Dtype>(i))) != 0;
        if (allowed && seen.count(name) == 0) missing.insert(name);
      }
    }
    for (const Attribute& each : op.attributes) {
      if (each.method) continue;  // how the CPU computes
      size_t values = each.type == AttributeType::kFlag ? 2 : each.choices.size();
      for (size_t value = 0; value < values; ++value) {
        const std::string name = std::string(each.name) + "=" + std::to_string(value);
        if (seen.count(name) == 0) missing.insert(name);
      }
    }
    for (const std::string& each : missing)
      FAIL_CHECK(std::string(entry.op), " is never tried with ", std::string(each));
  }
}

// Not under ThreadSanitizer, which needs seconds for each new process and finds nothing in it: no thread runs beside another.
#if defined(GRADRING_SOFTWARE_DEVICE) && !defined(GRADRING_SOFTWARE_TSAN)
TEST_CASE(
    "every CUDA call of every op fails once: the error names both, and the device stays usable or is said to be lost") {
  Random random(20240607);
  for (const Entry& entry : every_entry()) {
    for (int turn = 0; turn < 2; ++turn) {
      Trial trial(entry.op, dtype_of(entry, turn));
      entry.make(random, trial);
      check_failures(trial);
    }
  }
}
#endif
