// cast: see any_cast.h. The results are the same. There is a kernel per target, which reads the source's dtype once. Bytes per
// element: one read of the source's and one write of the target's size. FLOPs per element: 1, the conversion.
#include "cuda/device.h"
#include "ops/cuda_call.h"

namespace gradring {

namespace {

using namespace device;

// Returns a double that rounds to a 16-bit float as x itself does: in a long integer, one bit replaces the lowest 12 and
// says whether any of them is set (rounding to odd), so that nothing is rounded twice.
template <class From>
__device__ __forceinline__ double as_double(From x) {
  if constexpr (std::is_integral_v<From> && sizeof(From) == 8) {
    constexpr From kLow = 0xfff;
    if (x < (From{1} << 52) && (!std::is_signed_v<From> || x > -static_cast<From>(int64_t{1} << 52))) {
      return static_cast<double>(x);
    }
    const From odd = (x & kLow) != 0 ? kLow + 1 : 0;
    return static_cast<double>((x & ~kLow) | odd);
  } else {
    return static_cast<double>(x);
  }
}

template <class To, class From>
__device__ __forceinline__ To convert(From x) {
  if constexpr (sizeof(From) == 2 && !std::is_integral_v<From>) {
    return convert<To>(widen(x));
  } else if constexpr (std::is_same_v<To, bool>) {
    return x != From{0};
  } else if constexpr (std::is_same_v<To, __half>) {
    return __double2half(as_double(x));
  } else if constexpr (std::is_same_v<To, __nv_bfloat16>) {
    return __double2bfloat16(as_double(x));
  } else if constexpr (std::is_integral_v<To> && !std::is_integral_v<From>) {
    // A float that an int64 cannot hold becomes the lowest one, unless a uint64 holds it.
    constexpr From kLimit = static_cast<From>(9223372036854775808.0);
    constexpr uint64_t kTop = uint64_t{1} << 63;
    if (x >= -kLimit && x < kLimit) return static_cast<To>(static_cast<int64_t>(x));
    const bool large = sizeof(To) == 8 && x >= kLimit && x < 2 * kLimit;
    return static_cast<To>(large ? static_cast<uint64_t>(static_cast<int64_t>(x - kLimit)) + kTop : kTop);
  } else {
    return static_cast<To>(x);
  }
}

template <class To, class From>
__device__ __forceinline__ void convert_all(const void* from, To* to, int64_t n) {
  const auto* x = static_cast<const From*>(from);
  const int64_t all = threads_in_grid();
  int64_t i = thread_in_grid();
  for (; i + 3 * all < n; i += 4 * all) {
    From loaded[4];
    GRADRING_UNROLL
    for (int u = 0; u < 4; ++u) loaded[u] = x[i + u * all];
    GRADRING_UNROLL
    for (int u = 0; u < 4; ++u) to[i + u * all] = convert<To>(loaded[u]);
  }
  for (; i < n; i += all) to[i] = convert<To>(x[i]);
}

template <class To>
__global__ void __launch_bounds__(kElementThreads)
    cast_kernel(const StepRecord* step, Dtype dtype, const void* from, To* to, int64_t n) {
  if (stopped(step)) return;
  switch (dtype) {
    case Dtype::kFloat32: return convert_all<To, float>(from, to, n);
    case Dtype::kFloat64: return convert_all<To, double>(from, to, n);
    case Dtype::kBool:
    case Dtype::kUint8: return convert_all<To, uint8_t>(from, to, n);
    case Dtype::kInt8: return convert_all<To, int8_t>(from, to, n);
    case Dtype::kInt16: return convert_all<To, int16_t>(from, to, n);
    case Dtype::kInt32: return convert_all<To, int32_t>(from, to, n);
    case Dtype::kInt64: return convert_all<To, int64_t>(from, to, n);
    case Dtype::kUint16: return convert_all<To, uint16_t>(from, to, n);
    case Dtype::kUint32: return convert_all<To, uint32_t>(from, to, n);
    case Dtype::kUint64: return convert_all<To, uint64_t>(from, to, n);
    case Dtype::kFloat16: return convert_all<To, __half>(from, to, n);
    case Dtype::kBfloat16: return convert_all<To, __nv_bfloat16>(from, to, n);
  }
}

template <class To>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &y = operand(call, "y");
  const int64_t n = x.elements();
  if (n == 0) return 0;
  const StepRecord* step = call.step;
  const void* from = x.data;
  return LAUNCH(cast_kernel<To>, dim3(element_blocks(n, 4, queue.processors)), dim3(kElementThreads), 0,
                stream_of(queue), step, x.dtype, from, y.as<To>(), n);
}

CudaRun choose(const OpCall& call) noexcept {
  switch (operand(call, "y").dtype) {
    case Dtype::kFloat32: return run<float>;
    case Dtype::kFloat64: return run<double>;
    case Dtype::kFloat16: return run<__half>;
    case Dtype::kBfloat16: return run<__nv_bfloat16>;
    case Dtype::kInt64: return run<int64_t>;
    case Dtype::kInt32: return run<int32_t>;
    case Dtype::kInt16: return run<int16_t>;
    case Dtype::kInt8: return run<int8_t>;
    case Dtype::kUint64: return run<uint64_t>;
    case Dtype::kUint32: return run<uint32_t>;
    case Dtype::kUint16: return run<uint16_t>;
    case Dtype::kUint8: return run<uint8_t>;
    case Dtype::kBool: return run<bool>;
  }
  return nullptr;
}

}  // namespace

extern const CudaKernel cast_cuda_kernels[] = {{.op = "cast", .choose = choose}};
extern const size_t cast_cuda_kernel_count = std::size(cast_cuda_kernels);

}  // namespace gradring
