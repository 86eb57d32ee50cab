// Activations: values and derivatives, element by element.
#pragma once

#include <cstdint>

#include "ops/work.h"
#include "runtime/lane.h"

namespace gradring {

// kGeluErf runs as an op of its own: matrix products do not apply it on the way.
enum class Activation : int32_t { kNone = 0, kRelu, kGelu, kSilu, kTanh, kSigmoid, kGeluErf };

// Whether the backward pass of an activation needs its input (the "pre-activation"), as those of gelu and silu do. Those of
// relu, tanh and sigmoid need only the output.
constexpr bool derivative_needs_input(Activation a) noexcept {
  return a == Activation::kGelu || a == Activation::kSilu || a == Activation::kGeluErf;
}

// y[i] = activation(x[i]); y may be x.
template <class T>
struct ActivationArguments {
  Activation activation = Activation::kNone;
  int64_t n = 0;
  const T* x = nullptr;
  T* y = nullptr;
};

// dx[i] = dy[i] activation'(...), from `source`: the input where derivative_needs_input, else the output.
// dx may be dy.
template <class T>
struct ActivationVjpArguments {
  Activation activation = Activation::kNone;
  int64_t n = 0;
  const T* dy = nullptr;
  const T* source = nullptr;
  T* dx = nullptr;
};

template <class T>
void activation_forward(const Lane& lane, const ActivationArguments<T>& arguments) noexcept;
template <class T>
void activation_vjp(const Lane& lane, const ActivationVjpArguments<T>& arguments) noexcept;

// How many lanes are worth waking for n elements.
int activation_lanes(Activation activation, int64_t n, int lanes) noexcept;

}  // namespace gradring
