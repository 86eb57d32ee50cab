#include "ops/combine/kernels.h"
#include "ops/simd/half.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// A Layout says how elements lie in memory, and which vector they become. This one needs no conversion.
template <class T>
struct Plain {
  using Value = Vec<T>;
  static constexpr int kElementBytes = sizeof(T);
  static constexpr int kCount = kWidth<T>;
  // The number of vectors in one turn of a loop. Sums of integers are rare, and wait for memory.
  static constexpr int kAtOnce = static_cast<T>(0.5) != 0 ? 4 : 1;
  static GRADRING_INLINE Value load(const void* from) noexcept {
    Value v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }
  static GRADRING_INLINE void store(void* to, Value v) noexcept { __builtin_memcpy(to, &v, sizeof v); }
};

template <Vec<float> (*kWiden)(HalfVector) noexcept, HalfVector (*kNarrow)(Vec<float>) noexcept>
struct Half {
  using Value = Vec<float>;
  static constexpr int kElementBytes = 2;
  static constexpr int kCount = kWidth<float>;
  static constexpr int kAtOnce = 1;  // converting takes longer than what a loop adds
  static GRADRING_INLINE Value load(const void* from) noexcept {
    HalfVector h;
    __builtin_memcpy(&h, from, sizeof h);
    return kWiden(h);
  }
  static GRADRING_INLINE void store(void* to, Value v) noexcept {
    const HalfVector h = kNarrow(v);
    __builtin_memcpy(to, &h, sizeof h);
  }
};

struct Add {
  template <class V>
  static GRADRING_INLINE V apply(V a, V b) noexcept {
    return a + b;
  }
};
struct Multiply {
  template <class V>
  static GRADRING_INLINE V apply(V a, V b) noexcept {
    return a * b;
  }
};
// If either value is a NaN, the result is a NaN. Of equal values (also zeros of different signs) the result is the
// first.
struct Maximum {
  template <class V>
  static GRADRING_INLINE V apply(V a, V b) noexcept {
    return ((a >= b) | (a != a)) ? a : b;
  }
};
struct Minimum {
  template <class V>
  static GRADRING_INLINE V apply(V a, V b) noexcept {
    return ((a <= b) | (a != a)) ? a : b;
  }
};

// What follows a finished sum: nothing, a division or a multiplication.
struct Keep {
  template <class V>
  static GRADRING_INLINE V apply(V v, double) noexcept {
    return v;
  }
};
struct Divide {
  template <class V>
  static GRADRING_INLINE V apply(V v, double divisor) noexcept {
    return v / static_cast<decltype(v[0] + v[0])>(divisor);
  }
};
// Gives the same bits as Divide if the divisor is a power of two, and is faster.
struct Scale {
  template <class V>
  static GRADRING_INLINE V apply(V v, double divisor) noexcept {
    return v * static_cast<decltype(v[0] + v[0])>(1 / divisor);
  }
};

// Reduces kVectors whole vectors from byte `at` on. kIn and kOut are the numbers of arrays, or 0 if only g has
// them; kRefills says whether there is a `next`, whose elements are only moved, so that every NaN keeps its bits.
template <class Layout, class Op, class Finish, int kIn, int kOut, bool kRefills, int kVectors>
GRADRING_INLINE void combine_at(const CombineArguments& g, int64_t at) noexcept {
  constexpr int kStep = Layout::kCount * Layout::kElementBytes;
  const int inputs = kIn ? kIn : g.inputs, outputs = kOut ? kOut : g.outputs;
  typename Layout::Value sum[kVectors];
  const auto* first = static_cast<const char*>(g.in[0]) + at;
  for (int k = 0; k < kVectors; ++k) sum[k] = Layout::load(first + k * kStep);
  for (int i = 1; i < inputs; ++i) {
    const auto* from = static_cast<const char*>(g.in[i]) + at;
    for (int k = 0; k < kVectors; ++k) sum[k] = Op::apply(sum[k], Layout::load(from + k * kStep));
  }
  if constexpr (kRefills) {
    typename Layout::Value next[kVectors];
    static_assert(sizeof next[0] == kStep);
    for (int k = 0; k < kVectors; ++k)
      __builtin_memcpy(&next[k], static_cast<const char*>(g.next) + at + k * kStep, kStep);
    for (int k = 0; k < kVectors; ++k) __builtin_memcpy(static_cast<char*>(g.room) + at + k * kStep, &next[k], kStep);
  }
  for (int k = 0; k < kVectors; ++k) sum[k] = Finish::apply(sum[k], g.divisor);
  for (int i = 0; i < outputs; ++i) {
    auto* to = static_cast<char*>(g.out[i]) + at;
    for (int k = 0; k < kVectors; ++k) Layout::store(to + k * kStep, sum[k]);
  }
}

// Reduces the last elements in a vector whose other elements are zero, so that they go through the same operations.
template <class Layout, class Op, class Finish>
[[gnu::noinline]] void combine_tail(const CombineArguments& g, int64_t at, int64_t count) noexcept {
  const auto bytes = static_cast<size_t>(count * Layout::kElementBytes);
  alignas(64) char buffer[GRADRING_VECTOR_BYTES] = {};
  const auto load = [&](const void* array) __attribute__((always_inline)) {
    __builtin_memcpy(buffer, static_cast<const char*>(array) + at, bytes);
    return Layout::load(buffer);
  };
  typename Layout::Value sum = load(g.in[0]);
  for (int i = 1; i < g.inputs; ++i) sum = Op::apply(sum, load(g.in[i]));
  if (g.next) __builtin_memcpy(static_cast<char*>(g.room) + at, static_cast<const char*>(g.next) + at, bytes);
  Layout::store(buffer, Finish::apply(sum, g.divisor));
  for (int i = 0; i < g.outputs; ++i) __builtin_memcpy(static_cast<char*>(g.out[i]) + at, buffer, bytes);
}

// If an array's size in bytes lies between these two bounds, the loop reads each of two inputs at three places in turn. The
// cache lines that another core has written come from that core's cache, and the prefetchers request more of them at a
// time for three streams than for one. Larger arrays come from memory, for which one stream per array suffices.
constexpr int64_t kLeastParted = int64_t{32} << 10, kMostParted = int64_t{1} << 20;

template <class Layout, class Op, class Finish, int kIn, int kOut, bool kRefills>
void combine_arrays(const CombineArguments& g) noexcept {
  constexpr int kVectors = Layout::kAtOnce;
  int64_t i = 0;
  const auto byte = [](int64_t element) { return element * Layout::kElementBytes; };
  constexpr int64_t kStep = kVectors * Layout::kCount;
  if (kIn == 2 && byte(g.count) >= kLeastParted && byte(g.count) <= kMostParted) {
    // A load waits for an earlier store whose address has the same low 12 bits, as if both had one address. So no two of the
    // places are nearly a multiple of 4 KiB apart.
    int64_t third = g.count / 3 / kStep * kStep;
    const int64_t apart = byte(third) % 4096;
    if (apart < 512 || apart > 3584 || (apart > 1792 && apart < 2304)) third -= 1024 / Layout::kElementBytes;
    for (; i < third; i += kStep) {
      combine_at<Layout, Op, Finish, kIn, kOut, kRefills, kVectors>(g, byte(i));
      combine_at<Layout, Op, Finish, kIn, kOut, kRefills, kVectors>(g, byte(third + i));
      combine_at<Layout, Op, Finish, kIn, kOut, kRefills, kVectors>(g, byte(2 * third + i));
    }
    i = 3 * third;
  }
  for (; i + kStep <= g.count; i += kStep) {
    combine_at<Layout, Op, Finish, kIn, kOut, kRefills, kVectors>(g, byte(i));
  }
  for (; kVectors > 1 && i + Layout::kCount <= g.count; i += Layout::kCount) {
    combine_at<Layout, Op, Finish, kIn, kOut, kRefills, 1>(g, byte(i));
  }
  if (i < g.count) combine_tail<Layout, Op, Finish>(g, byte(i), g.count - i);
}

// Reduces a few elements at a time, and then copies the elements of `next` to where it has read: they are in the first cache.
[[gnu::noinline]] void refill_in_blocks(Combine run, const CombineArguments& g, int64_t element_bytes) noexcept {
  constexpr int64_t kBlock = 4096;  // bytes
  const auto* const first = static_cast<const char*>(g.in[0]);
  const auto* const second = static_cast<const char*>(g.in[1]);
  for (int64_t at = 0, all = g.count * element_bytes; at < all; at += kBlock) {
    const int64_t bytes = all - at < kBlock ? all - at : kBlock;
    const void* const in[] = {first + at, second + at};
    void* const out[] = {static_cast<char*>(g.out[0]) + at};
    run({2, 1, in, out, bytes / element_bytes, g.divisor});
    __builtin_memcpy(static_cast<char*>(g.room) + at, static_cast<const char*>(g.next) + at,
                     static_cast<size_t>(bytes));
  }
}

template <class Layout, class Op, class Finish>
void combine_any(const CombineArguments& g) noexcept {
  if (g.next) return refill_in_blocks(combine_any<Layout, Op, Finish>, g, Layout::kElementBytes);
  combine_arrays<Layout, Op, Finish, 0, 0, false>(g);
}

// Sums of two ranks, which are the most frequent, have loops of their own. All other reductions share one loop, to keep
// the code small.
template <class Layout, class Op, class Finish>
void combine(const CombineArguments& g) noexcept {
  if (g.next) return combine_arrays<Layout, Op, Finish, 2, 1, true>(g);
  if (g.inputs == 2 && g.outputs == 2) return combine_arrays<Layout, Op, Finish, 2, 2, false>(g);
  if (g.inputs == 2 && g.outputs == 1) return combine_arrays<Layout, Op, Finish, 2, 1, false>(g);
  combine_any<Layout, Op, Finish>(g);
}

template <class Layout>
void mean(const CombineArguments& g) noexcept {
  uint64_t bits;
  __builtin_memcpy(&bits, &g.divisor, sizeof bits);
  const bool power_of_two = (bits << 12) == 0 && g.divisor >= 1 && g.divisor <= 1e30;
  if (!power_of_two) return combine_any<Layout, Add, Divide>(g);
  if constexpr (Layout::kElementBytes == 2) {
    combine_any<Layout, Add, Scale>(g);
  } else {
    combine<Layout, Add, Scale>(g);
  }
}

}  // namespace

using Bfloat16 = Half<widen_bfloat16, narrow_bfloat16>;
using Float16 = Half<widen_float16, narrow_float16>;

#if GRADRING_VECTOR_BYTES == 64
// Other reductions are rarer, wait for memory, and give the same bits with the vectors of AVX2, whose kernels take these places.
#define GRADRING_FLOAT(Layout, sum) {sum<Layout, Add, Keep>, mean<Layout>, nullptr, nullptr, nullptr}
#define GRADRING_INTEGER(T, U) \
  {}
#define GRADRING_BOOL \
  {}
#else
#define GRADRING_FLOAT(Layout, sum)                                                                              \
  {sum<Layout, Add, Keep>, mean<Layout>, combine_any<Layout, Maximum, Keep>, combine_any<Layout, Minimum, Keep>, \
   combine_any<Layout, Multiply, Keep>}
// Unsigned arithmetic wraps and has the same bits; the order of values is that of the type itself.
#define GRADRING_INTEGER(T, U)                                                      \
  {combine_any<Plain<U>, Add, Keep>, nullptr, combine_any<Plain<T>, Maximum, Keep>, \
   combine_any<Plain<T>, Minimum, Keep>, combine_any<Plain<U>, Multiply, Keep>}
#define GRADRING_BOOL \
  {nullptr, nullptr, combine_any<Plain<uint8_t>, Maximum, Keep>, combine_any<Plain<uint8_t>, Minimum, Keep>, nullptr}
#endif

extern const CombineKernels combine_kernels;
const CombineKernels combine_kernels = {{
    GRADRING_FLOAT(Plain<float>, combine),
    GRADRING_FLOAT(Plain<double>, combine),
    GRADRING_FLOAT(Float16, combine_any),  // the conversion takes longer than the loop, so one loop serves all
    GRADRING_FLOAT(Bfloat16, combine_any),
    GRADRING_INTEGER(int8_t, uint8_t),
    GRADRING_INTEGER(int16_t, uint16_t),
    GRADRING_INTEGER(int32_t, uint32_t),
    GRADRING_INTEGER(int64_t, uint64_t),
    GRADRING_INTEGER(uint8_t, uint8_t),
    GRADRING_INTEGER(uint16_t, uint16_t),
    GRADRING_INTEGER(uint32_t, uint32_t),
    GRADRING_INTEGER(uint64_t, uint64_t),
    GRADRING_BOOL,
}};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
