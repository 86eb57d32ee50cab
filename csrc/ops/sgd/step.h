// SGD as a program's instruction: its attributes, and what it shares with the products into which it is fused. The learning
// rate is a field of the step record.
#pragma once

#include "ops/learning_rate.h"
#include "ops/op.h"
#include "ops/sgd/sgd.h"

namespace gradring {

enum SgdStepAttribute { kSgdMomentum, kSgdNesterov, kSgdDecay, kSgdRate };
inline constexpr Attribute kSgdStepAttributes[] = {
    {.name = "momentum", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0},
    {.name = "nesterov", .type = AttributeType::kFlag},
    {.name = "weight_decay", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0},
    kRateAttribute,
};

template <class T>
void set_sgd_attributes(const OpCall& call, SgdArguments<T>* g) noexcept {
  g->momentum = call.real(kSgdMomentum), g->nesterov = call.flag(kSgdNesterov);
  g->weight_decay = call.real(kSgdDecay);
}

inline void check_velocity(const OpCall& call, int velocity) {
  if (call.real(kSgdMomentum) == 0 || call[velocity]) return;
  refuse(call, call.operand_name(velocity) + std::string(" is missing: momentum above 0 needs an array of the "
                                                         "optimizer's state"));
}

inline double sgd_flops(const OpCall& call, int64_t elements) {
  return static_cast<double>(elements) * (call.real(kSgdMomentum) != 0 ? 4 : 2);
}

}  // namespace gradring
