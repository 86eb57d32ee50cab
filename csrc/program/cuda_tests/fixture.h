// Helpers for tests of the device's engine: a perceptron on the device and the same one on the CPU, and batches for both.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/software/tests/device_array.h"
#include "loader/array_source.h"
#include "ops/register_cuda.h"
#include "program/cuda/engine.h"
#include "program/testing.h"
#ifdef GRADRING_SOFTWARE_DEVICE
#include "ops/products_cuda.h"
#endif

namespace gradring::testing {

inline constexpr int64_t kIn = 12, kHidden = 9, kOut = 4;

// ThreadSanitizer needs seconds for each new process, and sees missing orders in any schedule. So where it watches, a program without
// a bug runs in fewer schedules, and of the calls of one kind only some fail.
#ifdef GRADRING_SOFTWARE_TSAN
inline constexpr int kManySeeds = 10;
inline constexpr bool kFewFailures = true;
#else
inline constexpr int kManySeeds = 20;
inline constexpr bool kFewFailures = false;
#endif

inline Perceptron perceptron(int64_t rows, bool scaled = false) {
  return {rows, kIn, kHidden, kOut, Dtype::kFloat32, scaled};
}

// The first of the samples.
inline std::vector<ArrayField> fields_of(const Samples<float>& s, int64_t samples) {
  const auto column = [&](Dtype dtype, std::vector<int64_t> shape, const void* data, int64_t stride) {
    ArrayLayout layout{static_cast<const std::byte*>(data), {stride}, false};
    if (!shape.empty()) layout.strides.push_back(static_cast<int64_t>(size_of(dtype)));
    return std::make_shared<MemoryColumn>(FieldSpec{"", dtype, std::move(shape)}, samples, std::move(layout), nullptr);
  };
  return {{column(Dtype::kFloat32, {kIn}, s.x.data(), kIn * 4), Dtype::kFloat32},
          {column(Dtype::kInt64, {}, s.y.data(), 8), Dtype::kInt64}};
}

// Runs a program in eager, lazy and seeded schedules; its result must have the same bits in all of them.
template <class T>
std::vector<T> same_in_every_schedule(const std::function<std::vector<T>()>& program) {
  std::vector<T> first;
  for (const software::Options& options : software::every_schedule(2)) {
    INFO(software::name(options));
    software::restart(options);
    const std::vector<T> result = program();
    REQUIRE(software::leaks() == "");
    if (first.empty()) first = result;
    REQUIRE(result.size() == first.size());
    REQUIRE((result.empty() || std::memcmp(result.data(), first.data(), result.size() * sizeof(T)) == 0));
  }
  return first;
}

// Device memory with the content of host memory.
inline cuda::DeviceMemory to_device(const void* from, size_t bytes) {
  cuda::DeviceMemory memory("test", bytes);
  REQUIRE(cudaMemcpy(memory.data(), from, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
  return memory;
}

struct Epoch {
  ChunkResult result;
  Totals totals;
  TrainState state;
  std::vector<float> params;
};

inline const std::vector<double>& rates() {
  static const std::vector<double> all(10000, 0.05);
  return all;
}

struct EpochOptions {
  int64_t samples = 200, batch = 32, accumulate = 1, most_steps = -1;
  int epochs = 1;
  double scale = 0;  // of the loss; 0: it has none
  int64_t good = 0;
  bool graphs = true, flush = false, evaluate = false, tune = false;
};

// The programs for full batches and for the last one.
template <class Engine>
void add_programs(Engine* engine, const EpochOptions& o) {
  const bool scaled = o.scale != 0;
  const int64_t rest = o.samples % o.batch;
  engine->add(Mode::kTrain, o.batch, perceptron(o.batch, scaled).program());
  if (rest != 0) engine->add(Mode::kTrain, rest, perceptron(rest, scaled).program());
  engine->state().loss_scale = o.scale, engine->state().good = o.good;
}

template <class Run>
void run_epochs(const Samples<float>& samples, const EpochOptions& o, ChunkOptions options, Epoch* epoch, Run&& run) {
  options.rates = rates().data(), options.rate_count = static_cast<int64_t>(rates().size());
  options.most_steps = o.most_steps;
  for (int e = 0; e < o.epochs; ++e) {
    ArraySource source(
        fields_of(samples, o.samples),
        {.samples = o.samples, .batch_size = o.batch, .seed = 3, .epoch = static_cast<uint64_t>(e), .shuffle = true});
    Feed feed;
    feed.source = &source;
    do {
      epoch->result = run(feed, options);
    } while (epoch->result.end == ChunkEnd::kSteps);
    if (epoch->result.end != ChunkEnd::kEpoch) return;
  }
}

inline Epoch on_cpu(const Samples<float>& samples, const EpochOptions& o) {
  const Perceptron shape = perceptron(o.batch, o.scale != 0);
  Memory<float> memory(shape);
  Engine engine(memory.arenas, {1, o.accumulate, 0, true});
  add_programs(&engine, o);
  Epoch epoch;
  run_epochs(samples, o, engine.chunk_options(), &epoch,
             [&](Feed& feed, const ChunkOptions& options) { return engine.chunk(true, feed, options, &epoch.totals); });
  if (o.flush) {
    ChunkOptions options = engine.chunk_options();
    options.rates = rates().data(), options.rate_count = 1;
    Executor* const executor = engine.programs(Mode::kTrain).find(o.batch);
    (void)flush_updates(engine.team(), *executor, options, &engine.state(), &engine.totals());
  }
  epoch.state = engine.state();
  epoch.params = memory.copy(shape);
  return epoch;
}

// A perceptron's arenas and engine on the device.
struct OnDevice {
  Perceptron shape;
  cuda::DeviceMemory param, grad, state;
  std::unique_ptr<cuda::Products> products;
  std::unique_ptr<DeviceEngine> engine;

  explicit OnDevice(const EpochOptions& o) : shape(perceptron(o.batch)) {
    register_all_cuda_kernels();
    Memory<float> memory(shape);
    const size_t bytes = Memory<float>::bytes(shape);
    const std::vector<std::byte> zeros(bytes);
    param = to_device(memory.params(), bytes);
    grad = to_device(zeros.data(), bytes), state = to_device(zeros.data(), bytes);
    Arenas arenas;
    const auto set = [&](BufferKind kind, const cuda::DeviceMemory& of) {
      arenas.set(kBufferKindNames[static_cast<int>(kind)], kind, static_cast<std::byte*>(of.data()),
                 static_cast<int64_t>(of.bytes()));
    };
    set(BufferKind::kParam, param), set(BufferKind::kGrad, grad), set(BufferKind::kState, state);
    products = std::make_unique<cuda::Products>(cuda::software_cublaslt(), "one", 1024);
    products->set_tuning(o.tune);
    DeviceOptions device;
    device.graphs = o.graphs, device.products = products.get(), device.processors = 2;
    engine = std::make_unique<DeviceEngine>(arenas, EngineOptions{1, o.accumulate, 0, true}, device);
    add_programs(engine.get(), o);
  }

  std::vector<float> params() const {
    std::vector<float> all(static_cast<size_t>(shape.elements()));
    REQUIRE(cudaMemcpy(all.data(), param.data(), all.size() * 4, cudaMemcpyDeviceToHost) == cudaSuccess);
    return all;
  }
};

inline Epoch on_device(const Samples<float>& samples, const EpochOptions& o) {
  OnDevice on(o);
  Epoch epoch;
  run_epochs(samples, o, on.engine->chunk_options(), &epoch, [&](Feed& feed, const ChunkOptions& options) {
    return on.engine->chunk(true, feed, options, &epoch.totals, nullptr);
  });
  if (o.flush) {
    ChunkOptions options = on.engine->chunk_options();
    options.rates = rates().data(), options.rate_count = 1;
    const ChunkResult flushed = on.engine->flush(false, o.batch, options, nullptr);
    CHECK(flushed.fault == Fault::kNone);
  }
  epoch.state = on.engine->state();
  epoch.params = on.params();
  return epoch;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return most;
}

}  // namespace gradring::testing
