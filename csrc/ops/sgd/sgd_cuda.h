// SGD's update on a CUDA device, for its own op and for the product into which it is fused.
#pragma once

#include "ops/cuda_step.h"
#include "ops/sgd/sgd.h"

namespace gradring {

template <class T>
struct CudaSgd {
  SgdArguments<T> g;  // `scalars` has the other numbers
  StepScalars scalars;
};

// The state, the attributes and the scalars of a call whose operands and attributes have SGD's names.
template <class T>
CudaSgd<T> cuda_sgd(const OpCall& call, const T* gradient) noexcept {
  CudaSgd<T> s;
  const Tensor &param = operand(call, "param"), &velocity = operand(call, "velocity");
  s.g.n = param.elements(), s.g.param = param.as<T>(), s.g.grad = gradient;
  s.g.velocity = (velocity ? velocity : operand(call, "momentum")).template as<T>();
  s.g.momentum = real(call, "momentum"), s.g.nesterov = flag(call, "nesterov");
  s.g.weight_decay = real(call, "weight_decay");
  s.scalars = step_scalars(call);
  return s;
}

// For float and double.
template <class T>
int queue_sgd(const OpCall& call, const CudaQueue& queue, const CudaSgd<T>& s) noexcept;

}  // namespace gradring
