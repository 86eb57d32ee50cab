// dropout: see dropout.h. A thread draws four words for eight columns of a row, so the bits are the CPU's.
// Bytes per element: one read and one write of sizeof(T). FLOPs per element: 1, and about 12 operations with integers.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/dropout/dropout.h"
#include "runtime/philox.h"

namespace gradring {

namespace {

using namespace device;

struct DropoutSource {
  uint64_t seed = 0;
  uint32_t layer = 0, epoch = 0;
  const int64_t* samples = nullptr;
  int64_t first_sample = 0;
};

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    dropout_kernel(const StepRecord* step, bool of_step, int64_t rows, int64_t columns, const T* x, T* y,
                   DropoutSource source, int32_t threshold, Wide<T> scale) {
  if (stopped(step)) return;
  if (of_step) {
    source.seed = step->seed, source.epoch = static_cast<uint32_t>(step->draw);
    source.samples = step->samples, source.first_sample = step->first_sample;
  }
  const PhiloxWords key = philox({source.layer, source.epoch, 0x64726f70, 0}, static_cast<uint32_t>(source.seed),
                                 static_cast<uint32_t>(source.seed >> 32));
  const int64_t groups = (columns + 7) / 8;
  for (int64_t at = thread_in_grid(); at < rows * groups; at += threads_in_grid()) {
    const int64_t row = at / groups, group = at - row * groups;
    const auto sample = static_cast<uint64_t>(source.samples ? source.samples[row] : source.first_sample + row);
    const PhiloxWords words =
        philox({static_cast<uint32_t>(group), 0, static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32)},
               key[0], key[1]);
    const int64_t first = row * columns + group * 8;
    const int count = static_cast<int>(columns - group * 8 < 8 ? columns - group * 8 : 8);
    const auto kept = [&](int k) {
      const auto number = static_cast<int32_t>(words[static_cast<size_t>(k / 2)] >> (16 * (k % 2)) & 0xffff);
      return number >= threshold;
    };
    constexpr int kV = kVectorWidth<T>;
    const bool aligned = ((reinterpret_cast<uintptr_t>(x + first) | reinterpret_cast<uintptr_t>(y + first)) & 15u) == 0;
    if (count == 8 && aligned) {
      Vector16<T> in[8 / kV];
      GRADRING_UNROLL
      for (int v = 0; v < 8 / kV; ++v) in[v] = load16(x + first + v * kV);
      GRADRING_UNROLL
      for (int v = 0; v < 8 / kV; ++v) {
        GRADRING_UNROLL
        for (int k = 0; k < kV; ++k)
          in[v].v[k] = kept(v * kV + k) ? narrow<T>(widen(in[v].v[k]) * scale) : narrow<T>(0);
        store16(y + first + v * kV, in[v]);
      }
    } else {
      GRADRING_UNROLL
      for (int k = 0; k < 8; ++k) {
        if (k < count) y[first + k] = kept(k) ? narrow<T>(widen(x[first + k]) * scale) : narrow<T>(0);
      }
    }
  }
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  const int64_t rows = x.shape[0], columns = rows ? x.elements() / rows : 0;
  if (rows * columns == 0) return 0;
  const bool of_step = static_cast<bool>(operand(call, "draw"));
  DropoutSource source;
  source.seed = static_cast<uint64_t>(integer(call, "seed")),
  source.layer = static_cast<uint32_t>(integer(call, "layer"));
  source.epoch = static_cast<uint32_t>(integer(call, "epoch")),
  source.samples = operand(call, "samples").as<const int64_t>();
  // Computes threshold and scale as dropout_key does.
  const double p = real(call, "p");
  const int32_t threshold = p >= 1 ? 65536 : p > 0 ? static_cast<int32_t>(p * 65536 + 0.5) : 0;
  const double keep = (65536 - threshold) / 65536.0;
  const auto scale = static_cast<Wide<T>>(keep > 0 ? 1 / keep : 0.0);
  const StepRecord* step = call.step;
  return LAUNCH(dropout_kernel<T>, dim3(element_blocks(rows * columns, 8, queue.processors)), dim3(kElementThreads), 0,
                stream_of(queue), step, of_step, rows, columns, x.as<const T>(), operand(call, "y").as<T>(), source,
                threshold, scale);
}

CudaRun choose(const OpCall& call) noexcept {
  return has_only(call, {"x", "samples", "draw", "y"}) ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel dropout_cuda_kernels[] = {{.op = "dropout", .choose = choose}};
extern const size_t dropout_cuda_kernel_count = std::size(dropout_cuda_kernels);

}  // namespace gradring
