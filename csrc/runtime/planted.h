// Bugs that tests plant into code, to show that they would find them. Each part of the code lists its own in an enumeration, of which
// kNone is no bug. Without GRADRING_PLANTS, which only a test sets, there are none.
#pragma once

namespace gradring {

#ifdef GRADRING_PLANTS
template <class Plant>
inline Plant the_plant = Plant::kNone;
template <class Plant>
bool planted(Plant plant) noexcept {
  return plant == the_plant<Plant>;
}
#else
template <class Plant>
constexpr bool planted(Plant) noexcept {
  return false;
}
#endif

}  // namespace gradring
