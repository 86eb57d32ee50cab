// The reference: one element at a time, as dropout.h defines it.
#pragma once

#include "ops/dropout/dropout.h"
#include "runtime/philox.h"

namespace gradring::reference {

template <class T>
T dropout(const DropoutArguments<T>& g, int64_t row, int64_t column) {
  const PhiloxWords key =
      philox({g.layer, g.epoch, 0x64726f70, 0}, static_cast<uint32_t>(g.seed), static_cast<uint32_t>(g.seed >> 32));
  const auto sample = static_cast<uint64_t>(g.samples ? g.samples[row] : g.first_sample + row);
  const PhiloxWords words =
      philox({static_cast<uint32_t>(column / 8), 0, static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32)},
             key[0], key[1]);
  const int64_t half = column % 8;
  const uint32_t number = words[static_cast<size_t>(half / 2)] >> (16 * (half % 2)) & 0xffff;
  const double threshold = static_cast<int64_t>(g.p * 65536 + 0.5);
  const T scale = static_cast<T>(threshold < 65536 ? 65536 / (65536 - threshold) : 0);
  return number >= threshold ? g.x[row * g.columns + column] * scale : T(0);
}

}  // namespace gradring::reference
