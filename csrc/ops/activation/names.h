// The activations' names, in the order of the enumeration: the choices of an attribute of type Activation. The two forms of gelu
// have one name, and the op activation has an attribute that chooses between them.
#pragma once

#include "ops/activation/activation.h"

namespace gradring {

inline constexpr const char* kActivationNames[] = {"none", "relu", "gelu", "silu", "tanh", "sigmoid"};
static_assert(static_cast<int>(Activation::kSigmoid) == 5);

}  // namespace gradring
