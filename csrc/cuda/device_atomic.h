// Atomics of device memory. Each names its order. The scope is the device, or the system if other devices or the host
// read the variable. On the software device, each turn of a loop that loads lets other work run.
#pragma once

namespace gradring::device {

enum class Order { kRelaxed, kAcquire, kRelease };
enum class Scope { kDevice, kSystem };

#ifdef GRADRING_SOFTWARE_DEVICE

template <Order O>
inline constexpr int kNativeOrder = O == Order::kRelaxed   ? __ATOMIC_RELAXED
                                    : O == Order::kAcquire ? __ATOMIC_ACQUIRE
                                                           : __ATOMIC_RELEASE;

template <Order O, Scope S = Scope::kDevice, class T>
T atomic_load(const T* from) {
  static_assert(O != Order::kRelease);
  ::gradring::software::relax();
  return __atomic_load_n(from, kNativeOrder<O>);
}
template <Order O, Scope S = Scope::kDevice, class T>
void atomic_store(T* to, T value) {
  static_assert(O != Order::kAcquire);
  __atomic_store_n(to, value, kNativeOrder<O>);
}
template <Order O, Scope S = Scope::kDevice, class T>
T atomic_add(T* to, T value) {
  static_assert(std::is_integral_v<T>, "sums of floating-point numbers would depend on the order of the threads");
  return __atomic_fetch_add(to, value, kNativeOrder<O>);
}
template <Order O, Scope S = Scope::kDevice, class T>
T atomic_min(T* to, T value) {
  static_assert(std::is_integral_v<T>);
  T old = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (value < old && !__atomic_compare_exchange_n(to, &old, value, true, kNativeOrder<O>, __ATOMIC_RELAXED)) {
  }
  return old;
}

#else

// The builtin accepts only literals.
#define GRADRING_IN_SCOPE(call, order, ...)                    \
  if constexpr (S == Scope::kDevice) {                         \
    return call(__VA_ARGS__, order, __NV_THREAD_SCOPE_DEVICE); \
  } else {                                                     \
    return call(__VA_ARGS__, order, __NV_THREAD_SCOPE_SYSTEM); \
  }
#define GRADRING_IN_ORDER(call, ...)                          \
  if constexpr (O == Order::kRelaxed) {                       \
    GRADRING_IN_SCOPE(call, __NV_ATOMIC_RELAXED, __VA_ARGS__) \
  } else if constexpr (O == Order::kAcquire) {                \
    GRADRING_IN_SCOPE(call, __NV_ATOMIC_ACQUIRE, __VA_ARGS__) \
  } else {                                                    \
    GRADRING_IN_SCOPE(call, __NV_ATOMIC_RELEASE, __VA_ARGS__) \
  }

template <Order O, Scope S = Scope::kDevice, class T>
__device__ __forceinline__ T atomic_load(const T* from) {
  static_assert(O != Order::kRelease);
  if constexpr (O == Order::kRelaxed) {
    GRADRING_IN_SCOPE(__nv_atomic_load_n, __NV_ATOMIC_RELAXED, const_cast<T*>(from))
  } else {
    GRADRING_IN_SCOPE(__nv_atomic_load_n, __NV_ATOMIC_ACQUIRE, const_cast<T*>(from))
  }
}
template <Order O, Scope S = Scope::kDevice, class T>
__device__ __forceinline__ void atomic_store(T* to, T value) {
  static_assert(O != Order::kAcquire);
  if constexpr (O == Order::kRelaxed) {
    GRADRING_IN_SCOPE(__nv_atomic_store_n, __NV_ATOMIC_RELAXED, to, value)
  } else {
    GRADRING_IN_SCOPE(__nv_atomic_store_n, __NV_ATOMIC_RELEASE, to, value)
  }
}
template <Order O, Scope S = Scope::kDevice, class T>
__device__ __forceinline__ T atomic_add(T* to, T value) {
  static_assert(std::is_integral_v<T>, "sums of floating-point numbers would depend on the order of the threads");
  GRADRING_IN_ORDER(__nv_atomic_fetch_add, to, value)
}
template <Order O, Scope S = Scope::kDevice, class T>
__device__ __forceinline__ T atomic_min(T* to, T value) {
  static_assert(std::is_integral_v<T>);
  GRADRING_IN_ORDER(__nv_atomic_fetch_min, to, value)
}

#undef GRADRING_IN_ORDER
#undef GRADRING_IN_SCOPE

#endif

// Call this between two turns of a loop that waits for another block or device.
__device__ __forceinline__ void wait_a_little() { __nanosleep(100); }

}  // namespace gradring::device
