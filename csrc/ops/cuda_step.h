// The scalars of an optimizer's step on a CUDA device: numbers of the call, or fields of the step record in device memory, which
// are read when the kernel runs, so that one captured graph serves all steps.
#pragma once

#include "ops/cuda_call.h"

namespace gradring {

struct StepScalars {
  const double* lr = nullptr;  // null: lr_value; the same below
  const int64_t* number = nullptr;
  const double* clip = nullptr;
  const double* weight = nullptr;
  double lr_value = 0, scale_value = 1;
  int64_t number_value = 1;

  __device__ double rate() const { return lr ? *lr : lr_value; }
  __device__ int64_t count() const { return number ? *number : number_value; }
  __device__ double scale() const { return scale_value * (clip ? *clip : 1.0) / (weight ? *weight : 1.0); }
};

inline StepScalars step_scalars(const OpCall& call) noexcept {
  StepScalars s;
  s.lr = operand(call, "lr").as<const double>(), s.number = operand(call, "number").as<const int64_t>();
  s.clip = operand(call, "clip").as<const double>(), s.weight = operand(call, "weight").as<const double>();
  s.lr_value = real(call, "lr"), s.scale_value = real(call, "grad_scale", 1);
  s.number_value = integer(call, "step");
  return s;
}

}  // namespace gradring
