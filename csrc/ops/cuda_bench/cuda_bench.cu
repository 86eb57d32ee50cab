// Measures kernels on a card. First its ceilings: how fast it copies memory, and how fast the library multiplies. Then the
// kernels, each as a part of the ceiling that bounds it. One line of JSON per row.
//
//   cuda_ops_bench [small | quick | full]     full: the sizes that docs/cuda.md names; small: to see that it runs
//
// A row is the median of seven measurements with their range; each runs the call for at least 50 ms.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/device.h"
#include "cuda/devices.h"
#include "cuda/memory.h"
#include "ops/cuda_run.h"
#include "ops/products_cuda.h"
#include "ops/register_cuda.h"
#include "runtime/status.h"

namespace gradring {

namespace {

using cuda::CublasLt;
using cuda::DeviceMemory;

[[noreturn]] void give_up(const char* call, cudaError_t code) {
  throw Error(Code::kUnavailable, std::string("[cuda_ops_bench] ") + call + ": " + cudaGetErrorString(code));
}
void must(const char* call, cudaError_t code) {
  if (code != cudaSuccess) give_up(call, code);
}

// Numbers from -1 to 1, or class numbers below `classes`.
__global__ void fill_floats(float* to, int64_t n) {
  for (int64_t i = device::thread_in_grid(); i < n; i += device::threads_in_grid()) {
    to[i] = static_cast<float>(static_cast<uint32_t>(i * 2654435761u) >> 8) / 8388608.0f - 1.0f;
  }
}
__global__ void fill_classes(int64_t* to, int64_t n, int64_t classes) {
  for (int64_t i = device::thread_in_grid(); i < n; i += device::threads_in_grid()) to[i] = i * 7919 % classes;
}

struct Given {
  const char* name;
  std::vector<int64_t> shape;
  Dtype dtype = Dtype::kFloat32;
  int64_t classes = 0;
};
using Values = std::vector<std::pair<const char*, double>>;

// A call of an op with arrays in device memory.
class Call {
 public:
  Call(const char* op, const std::vector<Given>& given, const Values& values, CudaQueue queue, const char* as = nullptr)
      : queue_(queue) {
    call_.op = find_schema(op), call_.name = op, name_ = as ? as : op;
    for (const Attribute& each : call_.op->attributes) attributes_.push_back(each.otherwise);
    for (const auto& [name, value] : values) {
      const int number = find_attribute(*call_.op, name);
      if (number < 0) throw Error(Code::kInternal, name_ + " has no attribute " + name);
      const auto at = static_cast<size_t>(number);
      const bool real = call_.op->attributes[at].type == AttributeType::kReal;
      attributes_.at(at) = real ? real_value(value) : integer_value(static_cast<int64_t>(value));
    }
    tensors_.resize(call_.op->operands.size());
    shapes_.resize(tensors_.size()), strides_.resize(tensors_.size());
    for (const Given& each : given) give(each);
    call_.tensors = tensors_.data(), call_.attributes = attributes_.data();
    scratch_ = DeviceMemory(op, cuda_scratch_bytes(call_, queue_));
    queue_.scratch = scratch_.data();
    run_ = prepare_cuda_call(call_, 0);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  void run() const { run_cuda_call(run_, call_, queue_); }
  const std::string& name() const { return name_; }
  std::string shapes() const {
    std::string text;
    for (const Tensor& each : tensors_)
      if (each) text += (text.empty() ? "" : " ") + shape_text(each);
    return text;
  }
  double flops() const { return call_.op->flops ? call_.op->flops(call_) : 0; }
  // What must go between memory and the processors, if the caches keep nothing from one call to the next.
  double bytes() const {
    double sum = 0;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const bool twice = call_.op->operands[i].access == Access::kUpdate;
      if (tensors_[i])
        sum += static_cast<double>(tensors_[i].elements()) * size_of(tensors_[i].dtype) * (twice ? 2 : 1);
    }
    return sum;
  }

 private:
  void give(const Given& given) {
    const int number = find_operand(*call_.op, given.name);
    if (number < 0) throw Error(Code::kInternal, name_ + " has no operand " + given.name);
    const auto at = static_cast<size_t>(number);
    Tensor& tensor = tensors_.at(at);
    shapes_[at] = given.shape, strides_[at].resize(given.shape.size());
    auto stride = static_cast<int64_t>(size_of(given.dtype));
    for (size_t axis = given.shape.size(); axis-- > 0; stride *= given.shape[axis]) strides_[at][axis] = stride;
    memory_.emplace_back(given.name, static_cast<size_t>(stride));
    void* const data = memory_.back().data();
    tensor = {data, shapes_[at].data(), strides_[at].data(), static_cast<int32_t>(given.shape.size()), given.dtype};
    const int64_t n = tensor.elements();
    const unsigned blocks = device::element_blocks(n, 1, queue_.processors);
    int code = cudaSuccess;
    if (given.dtype == Dtype::kFloat32) {
      code = LAUNCH(fill_floats, dim3(blocks), dim3(device::kElementThreads), 0, nullptr, static_cast<float*>(data), n);
    } else if (given.classes > 0) {
      code = LAUNCH(fill_classes, dim3(blocks), dim3(device::kElementThreads), 0, nullptr, static_cast<int64_t*>(data),
                    n, given.classes);
    }
    must("fill", static_cast<cudaError_t>(code));
    must("cudaDeviceSynchronize", cudaDeviceSynchronize());
  }

  OpCall call_;
  CudaQueue queue_;
  std::string name_;
  CudaRun run_ = nullptr;
  std::vector<AttributeValue> attributes_;
  std::vector<Tensor> tensors_;
  std::vector<std::vector<int64_t>> shapes_, strides_;
  std::vector<DeviceMemory> memory_;
  DeviceMemory scratch_;
};

// Milliseconds of one run: the least, the median and the largest of seven measurements.
class Clock {
 public:
  explicit Clock(bool measures) : measures_(measures) {
    must("cudaEventCreate", cudaEventCreate(&begin_));
    must("cudaEventCreate", cudaEventCreate(&end_));
  }
  ~Clock() {
    (void)cudaEventDestroy(begin_);
    (void)cudaEventDestroy(end_);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  template <class Run>
  std::array<double, 3> time(const Run& run) const {
    int runs = 1;
    for (double total = once(run, runs); measures_ && total < 50 && runs < 100000;) {
      runs = static_cast<int>(std::min(100000.0, runs * std::max(2.0, 60 / std::max(total, 0.01))));
      total = once(run, runs);
    }
    std::vector<double> all;
    for (int i = 0; i < (measures_ ? 7 : 1); ++i) all.push_back(once(run, runs) / runs);
    std::sort(all.begin(), all.end());
    return {all.front(), all[all.size() / 2], all.back()};
  }

 private:
  template <class Run>
  double once(const Run& run, int runs) const {
    must("cudaEventRecord", cudaEventRecord(begin_, nullptr));
    for (int i = 0; i < runs; ++i) run();
    must("cudaEventRecord", cudaEventRecord(end_, nullptr));
    must("cudaEventSynchronize", cudaEventSynchronize(end_));
    float milliseconds = 0;
    must("cudaEventElapsedTime", cudaEventElapsedTime(&milliseconds, begin_, end_));
    return static_cast<double>(milliseconds);
  }
  bool measures_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

struct Ceilings {
  double bytes_per_ms = 0, flops_per_ms = 0;
};

void print(const std::string& name, const std::string& shapes, const std::array<double, 3>& ms, double bytes,
           double flops, const Ceilings& best) {
  std::printf(R"({"row": "%s", "shapes": "%s", "ms": %.5f, "least": %.5f, "most": %.5f, "GB/s": %.1f, "TFLOP/s": %.2f)",
              name.c_str(), shapes.c_str(), ms[1], ms[0], ms[2], bytes / ms[1] * 1e-6, flops / ms[1] * 1e-9);
  if (best.bytes_per_ms > 0) std::printf(R"(, "of copy": %.3f)", bytes / ms[1] / best.bytes_per_ms);
  if (best.flops_per_ms > 0) std::printf(R"(, "of product": %.3f)", flops / ms[1] / best.flops_per_ms);
  std::printf("}\n");
  std::fflush(stdout);
}

struct Sizes {
  int64_t copy, m, n, k, rows, classes, parameters;
};
Sizes sizes_of(const std::string& mode) {
  if (mode == "full") return {int64_t{1} << 30, 8192, 4096, 4096, 8192, 50257, 1000000000};
  if (mode == "quick") return {int64_t{1} << 28, 8192, 4096, 4096, 8192, 50257, 100000000};
  return {5000, 33, 20, 17, 21, 300, 3001};
}

void bench(const std::string& mode, int processors, const CublasLt& library, const std::string& card) {
  const Sizes s = sizes_of(mode);
  const size_t workspace = mode == "small" ? 4096 : size_t{32} << 20;
  cuda::Products products(library, card, workspace);
  const CudaQueue queue{.stream = nullptr, .processors = processors, .scratch = nullptr, .products = &products};
  const Clock clock(mode != "small");
  Ceilings best;
  {
    const DeviceMemory from("copy", static_cast<size_t>(s.copy)), to("copy", static_cast<size_t>(s.copy));
    const auto ms = clock.time([&] {
      must("cudaMemcpyAsync", cudaMemcpyAsync(to.data(), from.data(), from.bytes(), cudaMemcpyDeviceToDevice, nullptr));
    });
    best.bytes_per_ms = 2 * static_cast<double>(s.copy) / ms[1];
    print("cudaMemcpyAsync", std::to_string(s.copy) + " bytes", ms, 2 * static_cast<double>(s.copy), 0, {});
    const Call copy("copy", {{"x", {s.copy / 4}}, {"y", {s.copy / 4}}}, {}, queue);
    const auto own = clock.time([&] { copy.run(); });
    print("copy", copy.shapes(), own, copy.bytes(), 0, {});
    best.bytes_per_ms = std::max(best.bytes_per_ms, copy.bytes() / own[1]);
  }
  const auto measure = [&](const Call& call) {
    const auto ms = clock.time([&] { call.run(); });
    print(call.name(), call.shapes(), ms, call.bytes(), call.flops(), best);
    return ms[1];
  };
  const auto product = [&](const char* as) {
    const Call call("matmul", {{"a", {s.m, s.k}}, {"b", {s.k, s.n}}, {"out", {s.m, s.n}}}, {}, queue, as);
    return call.flops() / measure(call);
  };
  best.flops_per_ms = product("matmul");
  {  // the same by the algorithm that is the fastest here
    const DeviceMemory a("tune", static_cast<size_t>(s.m * s.k * 4)), b("tune", static_cast<size_t>(s.k * s.n * 4)),
        c("tune", static_cast<size_t>(s.m * s.n * 4)), scratch("tune", workspace);
    const CudaProduct p{.m = s.m, .n = s.n, .k = s.k, .lda = s.k, .ldb = s.n, .ldc = s.n};
    if (const int code = products.tune(p, a.data(), b.data(), c.data(), queue, scratch.data()); code != 0) {
      cuda::throw_failure("tune", code);
    }
  }
  best.flops_per_ms = std::max(best.flops_per_ms, product("matmul, by timing"));

  const double gelu = 2, silu = 3;  // numbers of kActivationNames
  measure(Call("linear", {{"x", {s.m, s.k}}, {"w", {s.k, s.n}}, {"b", {s.n}}, {"y", {s.m, s.n}}, {"pre", {s.m, s.n}}},
               {{"activation", gelu}}, queue, "linear and gelu"));
  measure(
      Call("linear_dx",
           {{"dy", {s.m, s.n}}, {"w", {s.k, s.n}}, {"source", {s.m, s.k}}, {"dx", {s.m, s.k}}, {"column_sums", {s.k}}},
           {{"activation", gelu}}, queue));
  measure(Call("linear_dw", {{"x", {s.m, s.k}}, {"dy", {s.m, s.n}}, {"dw", {s.k, s.n}}}, {}, queue));
  measure(Call("cross_entropy",
               {{"x", {s.rows, s.classes}},
                {"target", {s.rows}, Dtype::kInt64, s.classes},
                {"dx", {s.rows, s.classes}},
                {"totals", {5}, Dtype::kInt64}},
               {}, queue, "cross_entropy and its gradient"));
  const std::vector<int64_t> flat{s.parameters}, matrix{s.m, s.n};
  measure(Call("adam_update", {{"param", flat}, {"grad", flat}, {"m", flat}, {"v", flat}},
               {{"step", 10}, {"weight_decay", 0.01}, {"decoupled", 1}}, queue, "adamw"));
  measure(Call("sgd_update", {{"param", flat}, {"grad", flat}, {"velocity", flat}}, {{"lr", 0.01}, {"momentum", 0.9}},
               queue));
  measure(Call("activation", {{"x", matrix}, {"y", matrix}}, {{"activation", gelu}}, queue, "gelu"));
  measure(Call("activation_vjp", {{"dy", matrix}, {"source", matrix}, {"dx", matrix}}, {{"activation", silu}}, queue,
               "silu_vjp"));
  measure(Call("softmax", {{"x", matrix}, {"y", matrix}}, {}, queue));
  measure(Call("softmax_vjp", {{"dy", matrix}, {"y", matrix}, {"dx", matrix}}, {}, queue));
  measure(Call("layer_norm", {{"x", matrix}, {"weight", {s.n}}, {"bias", {s.n}}, {"y", matrix}}, {}, queue));
  measure(Call("layer_norm_vjp",
               {{"dy", matrix}, {"x", matrix}, {"weight", {s.n}}, {"dx", matrix}, {"dweight", {s.n}}, {"dbias", {s.n}}},
               {}, queue));
  measure(Call("rms_norm", {{"x", matrix}, {"weight", {s.n}}, {"y", matrix}}, {}, queue));
  measure(Call("dropout", {{"x", matrix}, {"y", matrix}}, {{"p", 0.1}}, queue));
  measure(Call("column_sums", {{"x", matrix}, {"y", {s.n}}}, {}, queue));
  measure(Call("sum_of_squares", {{"gradient", flat}, {"sum", {1}, Dtype::kFloat64}}, {}, queue));
}

int run(const std::string& mode) {
  const cuda::Devices found = cuda::find_devices();
  if (found.problem.code != 0 || found.devices.empty()) {
    std::fprintf(stderr, "there is no device: %s\n", found.problem.text.c_str());
    return 1;
  }
  const cuda::Device& card = found.devices[0];
  CublasLt library;
#ifdef GRADRING_SOFTWARE_DEVICE
  library = cuda::software_cublaslt();
#else
  void* const loaded = dlopen("libcublasLt.so.13", RTLD_NOW);
  if (!loaded || cuda::load_cublaslt(loaded, &library)) {
    std::fprintf(stderr, "libcublasLt.so.13 does not load: is its folder in LD_LIBRARY_PATH?\n");
    return 1;
  }
#endif
  std::printf(R"({"card": "%s", "processors": %d, "bytes": %zu, "cublasLt": %zu, "mode": "%s"})"
              "\n",
              card.name.c_str(), card.processors, card.bytes, library.version(), mode.c_str());
  register_all_cuda_kernels();
  bench(mode, card.processors, library, card.name);
  return 0;
}

}  // namespace

}  // namespace gradring

int main(int count, char** arguments) {
  const std::string mode = count > 1 ? arguments[1] : "quick";
  if (count > 2 || (mode != "small" && mode != "quick" && mode != "full")) {
    std::fprintf(stderr, "usage: cuda_ops_bench [small | quick | full]\n");
    return 2;
  }
  try {
    return gradring::run(mode);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
