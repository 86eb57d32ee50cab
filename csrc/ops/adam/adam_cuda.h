// Adam's update on a CUDA device, for its own op and for the product into which it is fused.
#pragma once

#include "ops/adam/adam.h"
#include "ops/cuda_step.h"

namespace gradring {

template <class T>
struct CudaAdam {
  AdamArguments<T> g;  // `scalars` has the other numbers
  StepScalars scalars;
};

// The state, the attributes and the scalars of a call whose operands and attributes have Adam's names.
template <class T>
CudaAdam<T> cuda_adam(const OpCall& call, const T* gradient) noexcept {
  CudaAdam<T> s;
  const Tensor& param = operand(call, "param");
  s.g.n = param.elements(), s.g.param = param.as<T>(), s.g.grad = gradient;
  s.g.m = operand(call, "m").as<T>(), s.g.v = operand(call, "v").as<T>(), s.g.vmax = operand(call, "vmax").as<T>();
  s.g.beta1 = real(call, "beta1"), s.g.beta2 = real(call, "beta2"), s.g.eps = real(call, "eps");
  s.g.weight_decay = real(call, "weight_decay"), s.g.decoupled = flag(call, "decoupled");
  s.scalars = step_scalars(call);
  return s;
}

// For float and double.
template <class T>
int queue_adam(const OpCall& call, const CudaQueue& queue, const CudaAdam<T>& s) noexcept;

}  // namespace gradring
