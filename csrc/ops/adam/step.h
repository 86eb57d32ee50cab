// Adam as a program's instruction: its attributes, and what it shares with the products into which it is fused. The learning
// rate and the number of the update are fields of the step record.
#pragma once

#include "ops/adam/adam.h"
#include "ops/learning_rate.h"
#include "ops/op.h"

namespace gradring {

enum AdamStepAttribute { kAdamBeta1, kAdamBeta2, kAdamEps, kAdamDecay, kAdamDecoupled, kAdamRate };
inline constexpr Attribute kAdamStepAttributes[] = {
    {.name = "beta1", .type = AttributeType::kReal, .required = true, .least = 0, .most = 1, .below_most = true},
    {.name = "beta2", .type = AttributeType::kReal, .required = true, .least = 0, .most = 1, .below_most = true},
    {.name = "eps", .type = AttributeType::kReal, .required = true, .least = 0},
    {.name = "weight_decay", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0},
    {.name = "decoupled", .type = AttributeType::kFlag},
    kRateAttribute,
};

template <class T>
void set_adam_attributes(const OpCall& call, AdamArguments<T>* g) noexcept {
  g->beta1 = call.real(kAdamBeta1), g->beta2 = call.real(kAdamBeta2), g->eps = call.real(kAdamEps);
  g->weight_decay = call.real(kAdamDecay), g->decoupled = call.flag(kAdamDecoupled);
}

inline double adam_flops(int64_t elements) { return 12 * static_cast<double>(elements); }

}  // namespace gradring
