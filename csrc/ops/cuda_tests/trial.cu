#include <dlfcn.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/software/tests/device_array.h"
#include "ops/cast/half.h"
#include "ops/cuda_run.h"
#include "ops/cuda_tests/trial.h"
#include "ops/loss/loss.h"
#include "ops/products_cuda.h"
#include "ops/register_cuda.h"
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
    default: return static_cast<double>(get<int64_t>(from));
  }
}

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t extent : shape) n *= extent;
  return n;
}

// The arrays of a call, and the call itself.
struct Prepared {
  std::vector<std::vector<int64_t>> shapes, strides;
  std::vector<Tensor> tensors;
  OpCall call;
};

bool is_result(const OpSchema& op, size_t i) { return op.operands[i].access == Access::kWrite; }
bool is_field(const OpSchema& op, size_t i) { return op.operands[i].step != StepField::kNone; }

Dtype in(Dtype dtype, Dtype wide, bool widened) { return widened && dtype == Dtype::kFloat32 ? wide : dtype; }

// data[i] is the address of operand i.
void prepare(const Trial& trial, bool widened, const std::vector<void*>& data, StepRecord* record, Prepared* p) {
  const size_t count = trial.operands.size();
  p->shapes.resize(count), p->strides.resize(count), p->tensors.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const Given& given = trial.operands[i];
    if (given.dtype == kNoDtype) continue;
    p->shapes[i] = given.shape;
    const Dtype dtype = is_field(*trial.op, i) ? given.dtype : in(given.dtype, Dtype::kFloat64, widened);
    const auto size = static_cast<int64_t>(size_of(dtype));
    auto stride = size;
    p->strides[i].resize(given.shape.size());
    for (size_t axis = given.shape.size(); axis-- > 0;) {
      p->strides[i][axis] = stride;
      stride *= given.shape[axis];
    }
    if (given.turned) {
      p->strides[i] = {size, (given.shape[0] + given.gap) * size};
    } else if (given.gap > 0) {
      p->strides[i][0] = (given.shape[1] + given.gap) * size;
    }
    p->tensors[i] = {data[i], p->shapes[i].data(), p->strides[i].data(), static_cast<int32_t>(given.shape.size()),
                     dtype};
  }
  p->call.op = trial.op, p->call.name = trial.op->name, p->call.tensors = p->tensors.data();
  p->call.attributes = trial.attributes.data(), p->call.step = record;
}

std::vector<Bytes> encoded(const Trial& trial, bool widened) {
  std::vector<Bytes> all(trial.operands.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const Given& given = trial.operands[i];
    if (given.dtype == kNoDtype || is_field(*trial.op, i)) continue;
    const Dtype dtype = in(given.dtype, Dtype::kFloat64, widened);
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
    const Dtype wide = in(given.dtype, Dtype::kFloat64, widened);
    const auto n = static_cast<size_t>(given.count());
    for (size_t k = n; k < static_cast<size_t>(given.stored()); ++k) {  // the gaps, in some order
      INFO("gap ", k - n);
      REQUIRE(std::all_of(&got.arrays[i][given.place(k) * size_of(given.dtype)],
                          &got.arrays[i][given.place(k) * size_of(given.dtype)] + size_of(given.dtype),
                          [](unsigned char byte) { return byte == 0xff; }));
    }
    if (trial.compare == Compare::kBits || (given.dtype != Dtype::kFloat32 && given.dtype != Dtype::kFloat64)) {
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

int64_t Given::count() const { return elements(shape); }

int64_t Given::stored() const {
  return gap == 0 ? count() : shape[turned] == 0 ? 0 : shape[turned] * (shape[!turned] + gap);
}

size_t Given::place(size_t element) const {
  if (gap == 0 && !turned) return element;
  const auto columns = static_cast<size_t>(shape[1]), rows = static_cast<size_t>(shape[0]),
             more = static_cast<size_t>(gap);
  const auto all = static_cast<size_t>(count());
  const size_t inner = turned ? rows : columns;
  if (element >= all) return (element - all) / more * (inner + more) + inner + (element - all) % more;
  const size_t row = element / columns, column = element % columns;
  return turned ? column * (rows + more) + row : row * (columns + more) + column;
}

Trial::Trial(const char* name, Dtype real) : op(find_schema(name)), dtype(real) {
  static const bool registered = [] {
    register_all_cuda_kernels();
    return true;
  }();
  REQUIRE(registered);
  REQUIRE(op != nullptr);
  operands.resize(op->operands.size()), wanted.resize(op->operands.size());
  lies_on.assign(op->operands.size(), -1), offsets.assign(op->operands.size(), 0);
  for (const Attribute& attribute : op->attributes) attributes.push_back(attribute.otherwise);
  if (real == Dtype::kFloat64) tolerance = 1e-11;
}

bool Trial::knows(const char* operand) const { return find_operand(*op, operand) >= 0; }

int Trial::place(const char* operand) const {
  const int i = find_operand(*op, operand);
  INFO(op->name, " ", operand);
  REQUIRE(i >= 0);
  return i;
}

void Trial::set(const char* attribute, double value) {
  const int i = find_attribute(*op, attribute);
  INFO(op->name, " ", attribute);
  REQUIRE(i >= 0);
  const bool is_real = op->attributes[static_cast<size_t>(i)].type == AttributeType::kReal;
  attributes[static_cast<size_t>(i)] = is_real ? real_value(value) : integer_value(static_cast<int64_t>(value));
}

void Trial::give(Random& random, const char* operand, std::vector<int64_t> shape, double scale, double offset) {
  std::normal_distribution<double> normal(offset, scale);
  Given& given = at(operand);
  given.dtype = dtype, given.shape = std::move(shape);
  given.values.resize(static_cast<size_t>(elements(given.shape)));
  for (double& value : given.values) {
    value = as_stored(normal(random));
  }
}

void Trial::give(Random& random, const char* operand, std::vector<int64_t> shape, Dtype type, int64_t low,
                 int64_t high) {
  Given& given = at(operand);
  given.dtype = type, given.shape = std::move(shape);
  given.values.resize(static_cast<size_t>(elements(given.shape)));
  for (double& value : given.values) value = static_cast<double>(between(random, low, high));
}

void Trial::make_positive(const char* operand) {
  for (double& value : at(operand).values) value = as_stored(std::fabs(value) + 0.25);
}

void Trial::spoil(Random& random, const char* operand) {
  auto& values = at(operand).values;
  if (values.empty()) return;
  spoiled = true;
  const double odd[] = {std::nan(""), INFINITY, -INFINITY};
  for (int64_t i = 0; i < between(random, 1, 3); ++i) {
    values[static_cast<size_t>(between(random, 0, static_cast<int64_t>(values.size()) - 1))] =
        odd[between(random, 0, 2)];
  }
}

void Trial::complete(Random& random) {
  const bool aligned = chance(random, 2);
  processors = chance(random, 2) ? 1 : 2;
  for (size_t i = 0; i < operands.size(); ++i) {
    const Operand& operand = op->operands[i];
    Given& given = operands[i];
    if (operand.step != StepField::kNone) {
      if (operand.optional && !wanted[i]) continue;
      given.dtype = kStepFields[static_cast<size_t>(operand.step)].dtype;
      given.values = {0};
      continue;
    }
    if (is_result(*op, i)) {
      if (operand.optional && !wanted[i]) continue;
      given.dtype = operand.dtype_attribute >= 0
                        ? static_cast<Dtype>(attributes[static_cast<size_t>(operand.dtype_attribute)].integer)
                    : operand.same_dtype >= 0                 ? operands[static_cast<size_t>(operand.same_dtype)].dtype
                    : operand.dtypes == only(Dtype::kFloat64) ? Dtype::kFloat64
                                                              : Dtype::kInt64;
      Prepared p;
      prepare(*this, false, std::vector<void*>(operands.size()), &record, &p);
      Shape shape;
      result_shape(p.call, static_cast<int>(i), &shape);
      given.shape.assign(shape.extent, shape.extent + shape.rank);
      if (!operand.apart && operand.like >= 0 && chance(random, 4) &&
          operands[static_cast<size_t>(operand.like)].dtype == given.dtype &&
          op->operands[static_cast<size_t>(operand.like)].access == Access::kRead) {
        lies_on[i] = operand.like;
      }
    } else if (given.dtype == kNoDtype && operand.like >= 0 && (!operand.optional || wanted[i])) {
      give(random, operand.name, operands[static_cast<size_t>(operand.like)].shape);
    }
    if (given.dtype == kNoDtype) continue;
    const bool in_parts = knows("parts") && wanted[static_cast<size_t>(place("parts"))];  // then rows lie side by side
    if (operand.layout != Layout::kDense && given.shape.size() == 2 && !(in_parts && is_result(*op, i))) {
      if (chance(random, 2)) given.gap = between(random, 1, 5);
      given.turned = operand.layout == Layout::kMatrix && chance(random, 3);
      if (operand.rows_like >= 0) given.gap = operands[static_cast<size_t>(operand.rows_like)].gap;
    }
    const auto size = static_cast<int64_t>(size_of(given.dtype));
    if (!aligned && size <= 8) offsets[i] = static_cast<int>(between(random, 0, 16 / size - 1) * size);
  }
  // Let at most one result share an operand's memory.
  for (size_t i = 0; i < lies_on.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (lies_on[i] >= 0 && lies_on[i] == lies_on[k]) lies_on[i] = -1;
    }
  }
}

std::string Trial::text() const {
  std::string text = std::string("[") + op->name + "]";
  for (size_t i = 0; i < operands.size(); ++i) {
    if (operands[i].dtype == kNoDtype) continue;
    text += std::string(" ") + op->operands[i].name + " " + dtype_name(operands[i].dtype) +
            shape_text(static_cast<int>(operands[i].shape.size()), operands[i].shape.data()) + "+" +
            std::to_string(offsets[i]);
    if (operands[i].gap > 0) text += " gap " + std::to_string(operands[i].gap);
    if (operands[i].turned) text += " turned";
    if (lies_on[i] >= 0) text += " on " + std::to_string(lies_on[i]);
  }
  return text;
}

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

int64_t edge(Random& random, int64_t most) {
  const int64_t edges[] = {0,   1,   2,   3,    4,    5,    7,    8,    9,    15,   16,  17,
                           31,  32,  33,  63,   64,   65,   127,  128,  129,  255,  256, 257,
                           511, 512, 513, 1023, 1024, 1025, 2047, 2049, 4095, 4096, 4097};
  static std::map<int64_t, size_t> next;  // by `most`: which edge is next
  if (chance(random, 3)) return between(random, 0, most);
  size_t& at = next[most];
  while (edges[at % std::size(edges)] > most) ++at;
  return edges[at++ % std::size(edges)];
}

int shapes() {
  const char* text = std::getenv("GRADRING_CUDA_SHAPES");
  return text ? std::max(1, std::atoi(text)) : 12;
}

}  // namespace gradring::testing
