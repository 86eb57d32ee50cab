// Runs trials, on the host and on the device, and compares their results.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/software/tests/device_array.h"
#include "ops/cast/half.h"
#include "ops/cuda_run.h"
#include "ops/cuda_tests/trial.h"
#include "ops/cuda_tests/trial_call.h"
#include "ops/loss/loss.h"
#include "ops/products_cuda.h"
#include "runtime/status.h"
#include "runtime/team.h"

namespace gradring::testing {

namespace {

using Bytes = std::vector<unsigned char>;

constexpr const char* kRecordFields = "step record";

template <class T>
void put(unsigned char* to, T value) {
  std::memcpy(to, &value, sizeof value);
}
template <class T>
T get(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

void encode(Dtype dtype, double x, unsigned char* to) {
  switch (dtype) {
    case Dtype::kFloat32: return put(to, static_cast<float>(x));
    case Dtype::kFloat64: return put(to, x);
    case Dtype::kBool: return put<uint8_t>(to, x != 0);
    case Dtype::kInt8: return put(to, static_cast<int8_t>(x));
    case Dtype::kInt16: return put(to, static_cast<int16_t>(x));
    case Dtype::kInt32: return put(to, static_cast<int32_t>(x));
    case Dtype::kInt64: return put(to, static_cast<int64_t>(x));
    case Dtype::kUint8: return put(to, static_cast<uint8_t>(x));
    case Dtype::kUint16: return put(to, static_cast<uint16_t>(x));
    case Dtype::kUint32: return put(to, static_cast<uint32_t>(x));
    case Dtype::kUint64: return put(to, static_cast<uint64_t>(x));
    case Dtype::kFloat16: return put(to, half_from(x).bits);
    case Dtype::kBfloat16: return put(to, bfloat_from(x).bits);
  }
}

double decode(Dtype dtype, const unsigned char* from) {
  switch (dtype) {
    case Dtype::kFloat32: return static_cast<double>(get<float>(from));
    case Dtype::kFloat64: return get<double>(from);
    case Dtype::kBfloat16: return static_cast<double>(bfloat_to_float({get<uint16_t>(from)}));
    case Dtype::kFloat16: return static_cast<double>(half_to_float({get<uint16_t>(from)}));
    default: return static_cast<double>(get<int64_t>(from));
  }
}

std::vector<Bytes> encoded(const Trial& trial, bool widened) {
  std::vector<Bytes> all(trial.operands.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const Given& given = trial.operands[i];
    if (given.dtype == kNoDtype || is_field(*trial.op, i)) continue;
    const Dtype dtype = trial.stored_as(given.dtype, widened);
    all[i].assign(static_cast<size_t>(given.stored()) * size_of(dtype), 0xff);
    if (is_result(*trial.op, i)) continue;
    for (size_t k = 0; k < given.values.size(); ++k)
      encode(dtype, given.values[k], &all[i][given.place(k) * size_of(dtype)]);
  }
  return all;
}

struct Results {
  std::vector<Bytes> arrays;
  StepRecord record;
};

// Runs the CPU's kernel.
Results on_host(const Trial& trial, bool widened) {
  Results results{encoded(trial, widened), trial.record};
  results.record.samples = trial.samples.empty() ? nullptr : trial.samples.data();
  results.record.rates = trial.rates.data(), results.record.rate_count = static_cast<int64_t>(trial.rates.size());
  std::vector<void*> data(trial.operands.size());
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] =
        is_field(*trial.op, i) ? address_of(results.record, trial.op->operands[i].step) : results.arrays[i].data();
  }
  Prepared p;
  prepare(trial, widened, data, &results.record, &p);
  check_call(p.call, true);
  OpWork work;
  if (trial.op->work) trial.op->work(p.call, 1, &work);
  Team team(1);
  team.reserve(work.scratch.per_lane, work.scratch.shared);
  for (const auto choose : {trial.op->cpu, trial.op->cpu_second}) {
    if (!choose) continue;
    const OpRun run = choose(p.call);
    REQUIRE(static_cast<bool>(run));
    team.run(1, [&](const Lane& lane) { run(lane, p.call); });
  }
  return results;
}

#ifndef GRADRING_SOFTWARE_DEVICE
// Returns null if cuBLAS is not installed: products then fail, and the test says so.
std::unique_ptr<cuda::Products> loaded_products() {
  void* library = dlopen("libcublasLt.so.13", RTLD_NOW);
  cuda::CublasLt table;
  if (!library || cuda::load_cublaslt(library, &table)) return nullptr;
  return std::make_unique<cuda::Products>(table, "card", size_t{32} << 20);
}
#endif

// The outcome of a call on the device.
struct Attempt {
  std::map<std::string, int> before,
      after;            // how often each CUDA call had been made when the kernel was queued, and then
  std::string failure;  // empty if the call succeeded
};

// Runs the trial by the CUDA kernel. With `attempt`, it may fail, and no results are read; otherwise it must succeed.
Results on_device(const Trial& trial, Attempt* attempt = nullptr) {
  std::vector<Bytes> start = encoded(trial, false);
  std::vector<std::unique_ptr<DeviceArray<unsigned char>>> arrays(start.size());
  StepRecord record = trial.record;
  const DeviceArray<int64_t> samples(trial.samples, 0);
  const DeviceArray<double> rates(trial.rates, 0);
  if (!trial.samples.empty()) record.samples = samples.data();
  record.rates = rates.data(), record.rate_count = static_cast<int64_t>(trial.rates.size());
  Bytes record_bytes(sizeof record);
  std::memcpy(record_bytes.data(), &record, sizeof record);
  DeviceArray<unsigned char> device_record(record_bytes, 0);
  auto* const step = reinterpret_cast<StepRecord*>(device_record.data());
  std::vector<void*> data(start.size());
  for (size_t i = 0; i < data.size(); ++i) {
    if (trial.operands[i].dtype == kNoDtype) continue;
    if (is_field(*trial.op, i)) {
      // A field has the same offset in the device's record as in the host's.
      const auto* at = static_cast<const char*>(address_of(record, trial.op->operands[i].step));
      data[i] = reinterpret_cast<char*>(step) + (at - reinterpret_cast<const char*>(&record));
    } else if (trial.lies_on[i] < 0) {
      arrays[i] = std::make_unique<DeviceArray<unsigned char>>(start[i], static_cast<size_t>(trial.offsets[i]));
      data[i] = arrays[i]->data();
    }
  }
  for (size_t i = 0; i < data.size(); ++i) {
    if (trial.lies_on[i] >= 0) data[i] = data[static_cast<size_t>(trial.lies_on[i])];
  }
  Prepared p;
  prepare(trial, false, data, step, &p);
  CudaQueue queue;
  queue.processors = trial.processors;
#ifdef GRADRING_SOFTWARE_DEVICE
  const cuda::Products products(cuda::software_cublaslt(), "software", 4096);
  queue.products = &products;
#else
  static const std::unique_ptr<cuda::Products> products = loaded_products();
  queue.products = products.get();
#endif
  const size_t scratch_bytes = cuda_scratch_bytes(p.call, queue);
  std::unique_ptr<DeviceArray<unsigned char>> scratch;
  if (scratch_bytes > 0) scratch = std::make_unique<DeviceArray<unsigned char>>(Bytes(scratch_bytes, 0xff), 0);
  queue.scratch = scratch ? scratch->data() : nullptr;
  Results results;
  if (attempt) {
    attempt->before = software::calls();
    try {
      run_cuda_call(prepare_cuda_call(p.call, 0), p.call, queue);
    } catch (const Error& error) {
      attempt->failure = error.what();
    }
    attempt->after = software::calls();
    const int ended = cuda::noted("cudaDeviceSynchronize", cudaDeviceSynchronize());
    if (ended != 0 && attempt->failure.empty()) attempt->failure = cuda::describe_failure(ended);
    return results;
  }
  run_cuda_call(prepare_cuda_call(p.call, 0), p.call, queue);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  results.arrays.resize(start.size());
  for (size_t i = 0; i < arrays.size(); ++i) {
    const auto from = trial.lies_on[i] < 0 ? i : static_cast<size_t>(trial.lies_on[i]);
    if (arrays[from]) results.arrays[i] = arrays[from]->read();
  }
  if (scratch) (void)scratch->read();  // read checks that nothing was written beyond the end
  std::memcpy(&results.record, device_record.read().data(), sizeof results.record);
  return results;
}

// The fields of the step record that ops write, by name.
std::map<std::string, double> fields(const StepRecord& r) {
  return {{"loss_sum", r.loss_sum},
          {"loss_weight", r.loss_weight},
          {"total_weight", r.total_weight},
          {"correct", static_cast<double>(r.correct)},
          {"fault", static_cast<double>(r.fault)},
          {"fault_row", static_cast<double>(r.fault_row)},
          {"fault_place", static_cast<double>(r.fault_place)},
          {"fault_value", static_cast<double>(r.fault_value)},
          {"clip", r.clip},
          {"gradient_norm", r.gradient_norm},
          {"moment", static_cast<double>(r.moment)}};
}

bool close(double got, double want, double scale, double tolerance) {
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want) || std::isinf(got)) return got == want;
  return std::fabs(got - want) <= tolerance * scale;
}

// Whether an operand holds LossTotals: int64 words, of which the first is a double.
bool is_totals(const OpSchema& op, size_t i) { return std::strcmp(op.operands[i].name, "totals") == 0; }

// Whether an element is NaN. Two NaNs count as equal, because their bits may differ.
bool is_nan(Dtype dtype, const unsigned char* from) {
  switch (dtype) {
    case Dtype::kFloat32:
    case Dtype::kFloat64: return std::isnan(decode(dtype, from));
    case Dtype::kFloat16: return (get<uint16_t>(from) & 0x7fff) > 0x7c00;
    case Dtype::kBfloat16: return (get<uint16_t>(from) & 0x7fff) > 0x7f80;
    default: return false;
  }
}

void compare(const Trial& trial, const Results& got, const Results& want, bool widened) {
  for (size_t i = 0; i < trial.operands.size(); ++i) {
    const Given& given = trial.operands[i];
    if (given.dtype == kNoDtype || trial.op->operands[i].access == Access::kRead || is_field(*trial.op, i)) continue;
    if (trial.op->operands[i].undefined) continue;
    INFO(trial.text(), " operand ", trial.op->operands[i].name);
    const Dtype wide = trial.stored_as(given.dtype, widened);
    const auto n = static_cast<size_t>(given.count());
    for (size_t k = n; k < static_cast<size_t>(given.stored()); ++k) {  // the gaps, in some order
      INFO("gap ", k - n);
      REQUIRE(std::all_of(&got.arrays[i][given.place(k) * size_of(given.dtype)],
                          &got.arrays[i][given.place(k) * size_of(given.dtype)] + size_of(given.dtype),
                          [](unsigned char byte) { return byte == 0xff; }));
    }
    if (trial.compare == Compare::kBits || (wide != Dtype::kFloat32 && wide != Dtype::kFloat64)) {
      if (is_totals(*trial.op, i)) {
        LossTotals a, b;
        std::memcpy(&a, got.arrays[i].data(), sizeof a), std::memcpy(&b, want.arrays[i].data(), sizeof b);
        CHECK(close(a.loss, b.loss, 1 + std::fabs(b.loss), trial.tolerance));
        CHECK(a.bad_row == b.bad_row);
        if (!trial.spoiled) CHECK(a.correct == b.correct);  // a row with a NaN has no prediction to compare
        CHECK(close(a.weight, b.weight, 1 + std::fabs(b.weight), trial.tolerance));
        CHECK(a.bad_weight == b.bad_weight);
        continue;
      }
      REQUIRE(got.arrays[i].size() == want.arrays[i].size());
      for (size_t k = 0; k < n; ++k) {
        const size_t size = size_of(given.dtype);
        const unsigned char *a = &got.arrays[i][k * size], *b = &want.arrays[i][k * size];
        const bool same = std::memcmp(a, b, size) == 0 || (is_nan(given.dtype, a) && is_nan(given.dtype, b));
        INFO("element ", k);
        REQUIRE(same);
      }
      continue;
    }
    double scale = 1;
    for (size_t k = 0; k < n; ++k) {
      const double value = std::fabs(decode(wide, &want.arrays[i][given.place(k) * size_of(wide)]));
      if (std::isfinite(value) && value > scale) scale = value;
    }
    for (size_t k = 0; k < n; ++k) {
      const double a = decode(given.dtype, &got.arrays[i][given.place(k) * size_of(given.dtype)]);
      double b = decode(wide, &want.arrays[i][given.place(k) * size_of(wide)]);
      if (given.dtype == Dtype::kFloat32) b = static_cast<double>(static_cast<float>(b));
      INFO("element ", k, " of ", n, ": ", a, " for ", b);
      REQUIRE(close(a, b, scale, trial.tolerance));
    }
  }
  for (const auto& [name, value] : fields(got.record)) {
    INFO(trial.text(), " ", kRecordFields, " ", name);
    const double other = fields(want.record).at(name);
    CHECK(close(value, other, 1 + std::fabs(other), trial.tolerance));
  }
}

void require_same(const Trial& trial, const Results& a, const Results& b) {
  for (size_t i = 0; i < a.arrays.size(); ++i) {
    INFO(trial.text(), " operand ", trial.op->operands[i].name);
    REQUIRE(a.arrays[i] == b.arrays[i]);
  }
  for (const auto& [name, value] : fields(a.record)) {
    INFO(trial.text(), " ", name);
    const double other = fields(b.record).at(name);
    REQUIRE((value == other || (std::isnan(value) && std::isnan(other))));
  }
}

}  // namespace

void check(Random& random, Trial trial, int turn) {
  const bool widened = trial.compare == Compare::kDouble;
  Results first;
  bool begun = false;
  for (const software::Options& options : software::schedules_of(turn)) {
    INFO(software::name(options));
    software::restart(options);
    {
      Results results = on_device(trial);
      if (!begun)
        first = std::move(results), begun = true;
      else
        require_same(trial, first, results);
    }
    REQUIRE(software::leaks() == "");
  }
  compare(trial, first, on_host(trial, widened), widened);
  if (!chance(random, 4)) return;
  trial.record.fault = Fault::kCallback;
  software::restart({});
  const Results untouched = on_device(trial);
  const std::vector<Bytes> start = encoded(trial, false);
  for (size_t i = 0; i < start.size(); ++i) {
    INFO(trial.text(), " with a fault, operand ", trial.op->operands[i].name);
    const bool kept = trial.stops || trial.op->operands[i].access != Access::kWrite;
    if (kept && trial.lies_on[i] < 0 && trial.operands[i].dtype != kNoDtype && !is_field(*trial.op, i)) {
      CHECK(untouched.arrays[i] == start[i]);
    }
  }
}

#ifdef GRADRING_SOFTWARE_DEVICE
namespace {

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// This runs in a process of its own. Returns 0 if the failure is as it should be.
int try_failure(const Trial& trial, const std::string& call) {
  Attempt first;
  (void)on_device(trial, &first);
  std::printf("%s\n", first.failure.c_str());
  if (call == "run") {  // a kernel that ends in an error: the next call reports it, and the device is lost
    const bool lost = holds(first.failure, "lost") && cudaDeviceSynchronize() == cudaErrorIllegalAddress;
    std::fflush(nullptr);
    _exit(lost ? 0 : 1);  // what a lost device holds cannot be freed
  }
  const std::string op = std::string("[") + trial.op->name + "] ";
  const bool in_library = call == "cudaLaunchKernel" && holds(first.failure, op + "cublasLtMatmul");
  if (!in_library && !holds(first.failure, op + call)) return 1;
  Attempt again;  // the failure is over
  (void)on_device(trial, &again);
  return again.failure.empty() ? 0 : 2;
}

}  // namespace

void check_failures(const Trial& trial) {
  software::restart({});
  Attempt well;
  (void)on_device(trial, &well);
  REQUIRE(well.failure == "");
  const std::vector<software::Options> schedules = software::every_schedule();
  size_t tried = 0;
  for (const auto& [call, count] : well.after) {
    const auto found = well.before.find(call);
    for (int number = (found == well.before.end() ? 0 : found->second) + 1; number <= count; ++number) {
      const int code = call == "run"                         ? int{cudaErrorIllegalAddress}
                       : call.compare(0, 8, "cublasLt") == 0 ? cuda::lt::kExecutionFailed
                                                             : int{cudaErrorLaunchOutOfResources};
      software::Options options = schedules[tried++ % schedules.size()];
      options.faults = {{call, number, code}};
      const software::Outcome outcome = software::run_apart(options, [&] { return try_failure(trial, call); });
      INFO(trial.text(), " ", software::name(options), " ", call, " ", number, " of ", count, ": ", outcome.said);
      CHECK(outcome.status == 0);
    }
  }
}
#endif

}  // namespace gradring::testing
