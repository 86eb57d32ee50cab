// The kernels that transform_cpu.cc compiles once per ISA level.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradring {

// Arithmetic on an element x with an operand y, each rounded on its own: x * y, x + y, x - y, x / y. kQuotient is x / y
// too, computed from a reciprocal where that was proved to give the same bits (chain.cc).
enum class ChainOp : uint8_t { kMul, kAdd, kSub, kDiv, kQuotient };
inline constexpr int kLongestChain = 4;

// to[i] = ops applied to from[i]. A scalar chain reads operands[k][0], the other operands[k][i]. operands has
// kLongestChain + 1 places; kQuotient, always the last, takes two of them: the divisor and its reciprocal.
template <class T>
using ChainKernel = void (*)(T* to, const void* from, int64_t count, const T* const* operands);

// The sequences of operations that have a kernel of their own, in the order of TransformKernels::chain_*.
inline constexpr int kChains = 12;
struct ChainSignature {
  int length;
  ChainOp ops[kLongestChain];
};
inline constexpr ChainSignature kChainSignatures[kChains] = {
    {0, {}},
    {1, {ChainOp::kMul}},
    {1, {ChainOp::kAdd}},
    {1, {ChainOp::kSub}},
    {1, {ChainOp::kDiv}},
    {2, {ChainOp::kMul, ChainOp::kAdd}},
    {2, {ChainOp::kSub, ChainOp::kDiv}},
    {3, {ChainOp::kMul, ChainOp::kSub, ChainOp::kDiv}},
    {4, {ChainOp::kMul, ChainOp::kAdd, ChainOp::kSub, ChainOp::kDiv}},
    {2, {ChainOp::kSub, ChainOp::kQuotient}},
    {3, {ChainOp::kMul, ChainOp::kSub, ChainOp::kQuotient}},
    {4, {ChainOp::kMul, ChainOp::kAdd, ChainOp::kSub, ChainOp::kQuotient}},
};

struct TransformKernels {
  ChainKernel<float> chain_uint8[kChains][2];    // [signature][0: scalars, 1: arrays]
  ChainKernel<float> chain_float32[kChains][2];  // `to` may be the same as `from`
  ChainKernel<double> single_float64[4][2];      // [op]: one operation, to may be from
  // Pixels of 1, 2, 3, 4, 8 or 12 bytes in reverse order; null for other sizes. Index: bytes of a pixel.
  void (*reverse_pixels[13])(std::byte* to, const std::byte* from, int64_t pixels);
};

}  // namespace gradring
