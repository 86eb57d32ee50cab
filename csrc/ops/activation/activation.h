// Activations: values and derivatives, element by element.
#pragma once

#include <cstdint>

#include "gradring/export.h"
#include "runtime/team.h"

namespace gradring {

enum class Activation : int32_t { kNone = 0, kRelu, kGelu, kSilu, kTanh, kSigmoid };

// What the backward pass of an activation reads: relu, tanh and sigmoid need the output alone, gelu and silu the
// input (the "pre-activation").
constexpr bool derivative_needs_input(Activation a) noexcept { return a == Activation::kGelu || a == Activation::kSilu; }

}  // namespace gradring
