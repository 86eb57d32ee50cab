// Chooses a table of function pointers, each of which was compiled once per ISA level.
//
// A kernel file foo_cpu.cc defines, in GRADRING_ISA_NAMESPACE, `const FooKernels foo_kernels`; foo.cc declares it per
// level with GRADRING_DECLARE_KERNELS(FooKernels, foo_kernels) and picks with GRADRING_KERNELS(foo_kernels).
#pragma once

#include <type_traits>

#include "runtime/cpu.h"
#include "runtime/lane.h"

namespace gradring {

// The entry points of a kernel for float and for double.
template <template <class> class Arguments>
struct Kernel {
  template <class T>
  using Run = void (*)(const Lane&, const Arguments<T>&) noexcept;

  Run<float> f32;
  Run<double> f64;

  template <class T>
  Run<T> of() const noexcept {
    if constexpr (std::is_same_v<T, float>) {
      return f32;
    } else {
      return f64;
    }
  }
};

}  // namespace gradring

#if defined(__x86_64__) && !defined(GRADRING_ONE_ISA)
#define GRADRING_DECLARE_KERNELS(Table, name) \
  namespace isa_base {                        \
  extern const Table name;                    \
  }                                           \
  namespace isa_avx2 {                        \
  extern const Table name;                    \
  }                                           \
  namespace isa_avx512 {                      \
  extern const Table name;                    \
  }
#define GRADRING_KERNELS(name)                                                         \
  (::gradring::active_isa() == ::gradring::Isa::kAvx512 ? ::gradring::isa_avx512::name \
   : ::gradring::active_isa() == ::gradring::Isa::kAvx2 ? ::gradring::isa_avx2::name   \
                                                        : ::gradring::isa_base::name)
// For kernels that vectors of 64 bytes do not make faster: divisions, roots, loads and stores limit them. AVX-512 uses those of
// AVX2, which give the same bits. Their foo_cpu.cc defines nothing at that level.
#define GRADRING_DECLARE_NARROW_KERNELS(Table, name) \
  namespace isa_base {                               \
  extern const Table name;                           \
  }                                                  \
  namespace isa_avx2 {                               \
  extern const Table name;                           \
  }
#define GRADRING_CHOOSE_NARROW(name) \
  (::gradring::active_isa() != ::gradring::Isa::kBase ? ::gradring::isa_avx2::name : ::gradring::isa_base::name)
#else
#define GRADRING_DECLARE_KERNELS(Table, name) \
  namespace isa_base {                        \
  extern const Table name;                    \
  }
#define GRADRING_KERNELS(name) (::gradring::isa_base::name)
#define GRADRING_DECLARE_NARROW_KERNELS GRADRING_DECLARE_KERNELS
#define GRADRING_CHOOSE_NARROW GRADRING_KERNELS
#endif

// Defines op(lane, arguments), which the op's header declares, for float and double. It calls the kernel of the active ISA level,
// which GRADRING_KERNELS or GRADRING_CHOOSE_NARROW chooses.
#define GRADRING_DEFINE_CHOSEN_OP(op, Arguments, kernel, CHOOSE)      \
  template <class T>                                                  \
  void op(const Lane& lane, const Arguments<T>& arguments) noexcept { \
    CHOOSE(kernel).of<T>()(lane, arguments);                          \
  }                                                                   \
  template void op(const Lane&, const Arguments<float>&) noexcept;    \
  template void op(const Lane&, const Arguments<double>&) noexcept;
#define GRADRING_DEFINE_OP(op, Arguments, kernel) GRADRING_DEFINE_CHOSEN_OP(op, Arguments, kernel, GRADRING_KERNELS)
