// Plain loops, which compilers vectorize for the instruction set. This file is compiled with -ffp-contract=off, so that an
// element's operations are rounded one by one, as NumPy rounds them.
#include "loader/transforms/kernels.h"
#include "loader/transforms/simd_bytes.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <ChainOp op, bool kArray, class T>
GRADRING_INLINE T apply(T x, const T* const* operands, int place, int64_t i) {
  const T y = operands[place][kArray ? i : 0];
  if constexpr (op == ChainOp::kMul) return x * y;
  if constexpr (op == ChainOp::kAdd) return x + y;
  if constexpr (op == ChainOp::kSub) return x - y;
  if constexpr (op == ChainOp::kDiv) return x / y;
  if constexpr (op == ChainOp::kQuotient) {
#if defined(__FMA__)
    // Markstein 1990: one correction of the product with the rounded reciprocal.
    const T reciprocal = operands[place + 1][kArray ? i : 0];
    const T quotient = x * reciprocal;
    return __builtin_fmaf(__builtin_fmaf(-quotient, y, x), reciprocal, quotient);
#else
    return x / y;
#endif
  }
}

template <class T, class From, bool kArray, ChainOp... ops>
void chain(T* to, const void* from_bytes, int64_t count, const T* const* operands) {
  // A row of a memory-mapped record may start at any address.
  typedef From Unaligned __attribute__((aligned(1)));
  const Unaligned* from = static_cast<const Unaligned*>(from_bytes);  // `auto` would drop the alignment attribute
  // Copies of the operands, so that the compiler knows that stores to `to` do not change them.
  const T* held[kLongestChain + 1] = {};
  if constexpr (sizeof...(ops) > 0) {
    for (int k = 0; k < kLongestChain + 1; ++k) held[k] = operands[k];
  }
#ifndef __clang__  // Clang does not know this pragma
#pragma GCC ivdep
#endif
  for (int64_t i = 0; i < count; ++i) {
    T x = static_cast<T>(from[i]);
    [[maybe_unused]] int place = 0;
    ((x = apply<ops, kArray, T>(x, held, place++, i)), ...);
    to[i] = x;
  }
}

template <ChainOp op>
GRADRING_INLINE Vec<float> apply_vector(Vec<float> x, const Vec<float>* operands) noexcept {
  if constexpr (op == ChainOp::kMul) return x * operands[0];
  if constexpr (op == ChainOp::kAdd) return x + operands[0];
  if constexpr (op == ChainOp::kSub) return x - operands[0];
  if constexpr (op == ChainOp::kDiv) return x / operands[0];
  if constexpr (op == ChainOp::kQuotient) {
#if defined(__FMA__)
    const Vec<float> quotient = x * operands[1];  // Markstein, as above
    return multiply_add(multiply_add(-quotient, operands[0], x), operands[1], quotient);
#else
    return x / operands[0];
#endif
  }
}

// A chain kernel for bytes, the dtype of most images. It works on whole vectors up to the end of the row.
template <bool kArray, ChainOp... ops>
void chain_bytes(float* to, const void* from_bytes, int64_t count, const float* const* operands) {
  constexpr int64_t kStep = kWidth<float>;
  constexpr int kOperands = static_cast<int>(sizeof...(ops)) + ((ops == ChainOp::kQuotient) || ... || false);
  const auto* from = static_cast<const uint8_t*>(from_bytes);
  Vec<float> held[kOperands + 1] = {};
  for (int k = 0; !kArray && k < kOperands; ++k) held[k] = broadcast(operands[k][0]);
  const auto step = [&](int64_t i, const uint8_t* bytes, int64_t n) __attribute__((always_inline)) {
    for (int k = 0; kArray && k < kOperands; ++k) {
      held[k] = n == kStep ? load(operands[k] + i) : load_partial(operands[k] + i, n);
    }
    Vec<float> x = load_bytes(bytes);
    [[maybe_unused]] int place = 0;
    ((x = apply_vector<ops>(x, held + place++)), ...);
    if (n == kStep) {
      store(to + i, x);
    } else {
      store_partial(to + i, x, n);
    }
  };
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) step(i, from + i, kStep);
  if (i == count) return;
  uint8_t rest[kStep] = {};
  __builtin_memcpy(rest, from + i, static_cast<size_t>(count - i));
  step(i, rest, count - i);
}

template <int kBytes>
struct Pixel {
  char bytes[kBytes];
};

template <int kBytes>
void reverse(std::byte* to, const std::byte* from, int64_t pixels) {
  for (int64_t i = 0; i < pixels; ++i) {
    Pixel<kBytes> pixel;
    __builtin_memcpy(&pixel, from + (pixels - 1 - i) * kBytes, kBytes);
    __builtin_memcpy(to + i * kBytes, &pixel, kBytes);
  }
}

}  // namespace

#define GRADRING_CHAIN_uint8_t(...) \
  {chain_bytes<false __VA_OPT__(, ) __VA_ARGS__>, chain_bytes<true __VA_OPT__(, ) __VA_ARGS__>}
#define GRADRING_CHAIN_float(...) \
  {chain<float, float, false __VA_OPT__(, ) __VA_ARGS__>, chain<float, float, true __VA_OPT__(, ) __VA_ARGS__>}
#define GRADRING_CHAIN(From, ...) GRADRING_CHAIN_##From(__VA_ARGS__)
#define GRADRING_CHAINS(From)                                                        \
  {GRADRING_CHAIN(From),                                                             \
   GRADRING_CHAIN(From, ChainOp::kMul),                                              \
   GRADRING_CHAIN(From, ChainOp::kAdd),                                              \
   GRADRING_CHAIN(From, ChainOp::kSub),                                              \
   GRADRING_CHAIN(From, ChainOp::kDiv),                                              \
   GRADRING_CHAIN(From, ChainOp::kMul, ChainOp::kAdd),                               \
   GRADRING_CHAIN(From, ChainOp::kSub, ChainOp::kDiv),                               \
   GRADRING_CHAIN(From, ChainOp::kMul, ChainOp::kSub, ChainOp::kDiv),                \
   GRADRING_CHAIN(From, ChainOp::kMul, ChainOp::kAdd, ChainOp::kSub, ChainOp::kDiv), \
   GRADRING_CHAIN(From, ChainOp::kSub, ChainOp::kQuotient),                          \
   GRADRING_CHAIN(From, ChainOp::kMul, ChainOp::kSub, ChainOp::kQuotient),           \
   GRADRING_CHAIN(From, ChainOp::kMul, ChainOp::kAdd, ChainOp::kSub, ChainOp::kQuotient)}
#define GRADRING_SINGLE(op) {chain<double, double, false, op>, chain<double, double, true, op>}

extern const TransformKernels transform_kernels;
const TransformKernels transform_kernels = {
    GRADRING_CHAINS(uint8_t),
    GRADRING_CHAINS(float),
    {GRADRING_SINGLE(ChainOp::kMul), GRADRING_SINGLE(ChainOp::kAdd), GRADRING_SINGLE(ChainOp::kSub),
     GRADRING_SINGLE(ChainOp::kDiv)},
    {nullptr, reverse<1>, reverse<2>, reverse<3>, reverse<4>, nullptr, nullptr, nullptr, reverse<8>, nullptr, nullptr,
     nullptr, reverse<12>},
};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
