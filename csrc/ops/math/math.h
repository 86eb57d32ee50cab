// Vectorized exp, expm1, log, log1p, tanh, sigmoid and the normal distribution for float and double, from arithmetic that every
// ISA level has.
//
// Method: exp reduces x = n ln2 + r, |r| <= ln2/2, with ln2 in two parts (Cody and Waite, Software Manual for the
// Elementary Functions, 1980) and rounds n by adding 1.5 * 2^(mantissa bits), whose low bits are then n itself;
// log reduces to [sqrt(1/2), sqrt(2)) and sums the series of 2 atanh(f / (2 + f)). The polynomials' coefficients
// are minimax (Remez exchange, 200-bit arithmetic). math_test.cc states and checks the errors:
//
//   float, ulp   exp 1.2   log 0.9   log1p 1.4   tanh 2.6   sigmoid 2.5   normal 8
//   double, ulp  exp 1.2   log 0.9   log1p 1.4   tanh 2.6   sigmoid 2.5   normal 8
//
// Infinities and NaN are treated as the exact functions treat them. Results of exp below twice the smallest normal
// number become 0 (no slow denormals on hot paths); log reads denormals exactly.
#pragma once

#include <type_traits>

#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The bit layout of a floating-point type.
template <class T>
struct Float;

template <>
struct Float<float> {
  using Int = int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr Int kBias = 127;
  static constexpr Int kSignBit = static_cast<Int>(0x80000000u);
  static constexpr Int kMagicBits = 0x4b400000;  // the bits of 1.5 * 2^23
  static constexpr float kMagic = 12582912.0f;
  static constexpr float kMinNormal = 1.17549435e-38f;
  static constexpr float kInfinity = __builtin_inff();
  static constexpr float kNaN = __builtin_nanf("");
  static constexpr float kLog2E = 1.44269504f;
  static constexpr float kLn2High = 6.9314575195e-01f;  // 15 bits: n * kLn2High is exact
  static constexpr float kLn2Low = 1.4286067653e-06f;
  static constexpr float kExpLow = -87.5f;        // exp is 0 at and below this
  static constexpr float kExpHigh = 89.0f;        // exp is infinite at and above this
  static constexpr float kTanhLow = -20.0f;       // 2 |x| beyond which tanh rounds to 1
  static constexpr float kNormalEdge = 14.0f;     // from here on, the normal distribution's tail is 0
  static constexpr Int kUpperHalf = ~Int{0xfff};  // a float of these bits has an exact square
  static constexpr Int kSqrtHalfBits = 0x3f3504f3;
  // exp(r) = 1 + r + r^2 q(r), |r| <= ln2/2
  struct Exp {
    static constexpr int kTerms = 5;
    static constexpr float at(int i) noexcept {
      constexpr float c[] = {0.5f, 0.166665241f, 0.041666232f, 0.00836839061f, 0.00139493041f};
      return c[i];
    }
  };
  // 2 atanh(s) = 2 s + s^3 R(s^2), |s| <= 0.1716
  struct Log {
    static constexpr int kTerms = 4;
    static constexpr float at(int i) noexcept {
      constexpr float c[] = {0.666666627f, 0.400003374f, 0.285372078f, 0.235843062f};
      return c[i];
    }
  };
  // The tail of the normal distribution beyond a, times exp(a^2 / 2) / t, with t = 5 / (a + 5), at 2 t - 1; 0 <= a <= kNormalEdge.
  struct Tail {
    static constexpr int kTerms = 10;
    static constexpr float at(int i) noexcept {
      constexpr float c[] = {0.1538386f,  0.13307649f,   0.099061295f,   0.062707104f,   0.033001002f,
                             0.01382082f, 0.0041787084f, 0.00059663726f, -0.0002040834f, -7.658036e-05f};
      return c[i];
    }
  };
};

template <>
struct Float<double> {
  using Int = int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr Int kBias = 1023;
  static constexpr Int kSignBit = static_cast<Int>(0x8000000000000000u);
  static constexpr Int kMagicBits = 0x4338000000000000;  // the bits of 1.5 * 2^52
  static constexpr double kMagic = 6755399441055744.0;
  static constexpr double kMinNormal = 2.2250738585072014e-308;
  static constexpr double kInfinity = __builtin_inf();
  static constexpr double kNaN = __builtin_nan("");
  static constexpr double kLog2E = 1.4426950408889634;
  static constexpr double kLn2High = 6.93147180369123816490e-01;
  static constexpr double kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kExpLow = -708.7;
  static constexpr double kExpHigh = 710.0;
  static constexpr double kTanhLow = -40.0;
  static constexpr double kNormalEdge = 40.0;
  static constexpr Int kUpperHalf = ~Int{0x7ffffff};
  static constexpr Int kSqrtHalfBits = 0x3fe6a09e667f3bcd;
  struct Exp {
    static constexpr int kTerms = 10;
    static constexpr double at(int i) noexcept {
      constexpr double c[] = {0.50000000000000056,    0.16666666666666688,    0.041666666666567286,
                              0.0083333333333124749,  0.001388888893508981,   0.00019841269907727946,
                              2.4801500983481993e-05, 2.7557223764472978e-06, 2.7627710081514533e-07,
                              2.5115781645456514e-08};
      return c[i];
    }
  };
  struct Log {
    static constexpr int kTerms = 7;
    static constexpr double at(int i) noexcept {
      constexpr double c[] = {0.66666666666667351, 0.39999999999409197, 0.28571428743766653, 0.22222198416292213,
                              0.18183573236486206, 0.15313804161416972, 0.14798591262529315};
      return c[i];
    }
  };
  struct Tail {
    static constexpr int kTerms = 22;
    static constexpr double at(int i) noexcept {
      constexpr double c[] = {
          0.15383860995001258,     0.13307650057801135,     0.09906112319399478,     0.06270663133425991,
          0.03300407323410223,     0.013823727741280873,    0.0041590133594833194,   0.0005986753540318707,
          -0.00015957387478938276, -0.00010897981415466318, -1.1875173560424339e-05, 9.952577736059616e-06,
          3.3363388893381767e-06,  -7.962549846283206e-07,  -5.540529789371985e-07,  6.752637591289214e-08,
          8.686248600209437e-08,   -8.770472158384658e-09,  -1.3308014802505023e-08, 2.1247874879865943e-09,
          1.5147404913905206e-09,  -4.412372171591377e-10};
      return c[i];
    }
  };
};

template <class T>
using IntVec = Vec<typename Float<T>::Int>;

template <class T>
GRADRING_INLINE IntVec<T> bits_of(Vec<T> x) noexcept {
  return __builtin_bit_cast(IntVec<T>, x);
}
template <class T>
GRADRING_INLINE Vec<T> from_bits(IntVec<T> x) noexcept {
  return __builtin_bit_cast(Vec<T>, x);
}
template <class T>
GRADRING_INLINE IntVec<T> broadcast_bits(typename Float<T>::Int x) noexcept {
  return x - IntVec<T>{};
}

// at_least raises x to `low`, and at_most lowers it to `high`; NaN stays NaN.
template <class T>
GRADRING_INLINE Vec<T> at_least(Vec<T> x, T low) noexcept {
  return maximum<T>(broadcast<T>(low), x);
}
template <class T>
GRADRING_INLINE Vec<T> at_most(Vec<T> x, T high) noexcept {
  return minimum<T>(broadcast<T>(high), x);
}

template <class T>
GRADRING_INLINE Vec<T> abs(Vec<T> x) noexcept {
  return from_bits<T>(bits_of<T>(x) & ~broadcast_bits<T>(Float<T>::kSignBit));
}
template <class T>
GRADRING_INLINE Vec<T> copy_sign(Vec<T> magnitude, Vec<T> sign) noexcept {
  const IntVec<T> bit = broadcast_bits<T>(Float<T>::kSignBit);
  return from_bits<T>((bits_of<T>(magnitude) & ~bit) | (bits_of<T>(sign) & bit));
}

// Terms::at(0) + Terms::at(1) x + ... by Horner's rule. A function gives the coefficients because device code reads no array
// of the host; both compilers unroll the loop and keep the numbers alone.
template <class T, class Terms>
GRADRING_INLINE Vec<T> polynomial(Vec<T> x) noexcept {
  Vec<T> p = broadcast<T>(Terms::at(Terms::kTerms - 1));
  GRADRING_UNROLL_16
  for (int i = Terms::kTerms - 2; i >= 0; --i) p = p * x + Terms::at(i);
  return p;
}

namespace math {

// x = n ln2 + r; `shifted` holds n + bias in its low bits.
template <class T>
struct Reduced {
  Vec<T> r;
  Vec<T> shifted;
};

template <class T>
GRADRING_INLINE Reduced<T> reduce(Vec<T> x, typename Float<T>::Int bias) noexcept {
  using F = Float<T>;
  const T magic = F::kMagic + static_cast<T>(bias);
  const Vec<T> shifted = x * F::kLog2E + magic;
  const Vec<T> n = shifted - magic;
  return {(x - n * F::kLn2High) - n * F::kLn2Low, shifted};
}

// Makes 2^n from n + kBias in the low bits of `shifted`. The shift discards the upper bits.
template <class T>
GRADRING_INLINE Vec<T> power_of_two(Vec<T> shifted) noexcept {
  return from_bits<T>(bits_of<T>(shifted) << Float<T>::kMantissaBits);
}

template <class T>
GRADRING_INLINE Vec<T> exp(Vec<T> x) noexcept {
  using F = Float<T>;
  x = at_most<T>(at_least<T>(x, F::kExpLow), F::kExpHigh);
  // Compute 2^(n-1) times 2 exp(r): n = 128 then needs no special case, and only results that are too large overflow.
  const Reduced<T> reduced = reduce<T>(x, F::kBias - 1);
  const Vec<T> r = reduced.r;
  const Vec<T> tail = polynomial<T, typename F::Exp>(r);
  const Vec<T> twice = (r + r) * (tail * r + T(1)) + T(2);
  return twice * power_of_two<T>(reduced.shifted);
}

// exp(x) - 1 for x <= 0 (all that tanh needs).
template <class T>
GRADRING_INLINE Vec<T> expm1_negative(Vec<T> x) noexcept {
  using F = Float<T>;
  const Reduced<T> reduced = reduce<T>(at_least<T>(x, F::kTanhLow), F::kBias);
  const Vec<T> r = reduced.r;
  const Vec<T> fraction = polynomial<T, typename F::Exp>(r) * (r * r) + r;
  const Vec<T> scale = power_of_two<T>(reduced.shifted);
  return scale * fraction + (scale - T(1));
}

template <class T>
GRADRING_INLINE Vec<T> tanh(Vec<T> x) noexcept {
  const Vec<T> e = expm1_negative<T>(abs<T>(x) * T(-2));
  return copy_sign<T>(e / (e + T(2)), x);
}

template <class T>
GRADRING_INLINE Vec<T> sigmoid(Vec<T> x) noexcept {
  return T(1) / (exp<T>(-x) + T(1));
}

// sigmoid(x) and its derivative s (1 - s), without the cancellation in 1 - s.
template <class T>
struct SigmoidSlope {
  Vec<T> value;
  Vec<T> slope;
};
template <class T>
GRADRING_INLINE SigmoidSlope<T> sigmoid_slope(Vec<T> x) noexcept {
  const Vec<T> e = exp<T>(-abs<T>(x));
  const Vec<T> large = T(1) / (e + T(1));  // sigmoid(|x|)
  const Vec<T> small = e * large;          // sigmoid(-|x|)
  return {x < Vec<T>{} ? small : large, small * large};
}

// The normal distribution: `below` is its integral up to x, (1 + erf(x / sqrt(2))) / 2, and `density` its slope there.
//
// The integral beyond a = |x| is exp(-a^2 / 2) times a smooth function of a, a polynomial in 1 / (a + 5): the change of variable
// of Shepherd and Laframboise, Chebyshev approximation of (1 + 2x) exp(x^2) erfc x, Math. Comp. 36 (1981); coefficients by
// interpolation at Chebyshev nodes in 50 digits. a^2 is the sum of an exact square and a small rest, so that its rounding
// error does not grow in the exponential, and the error is relative far into the tail.
template <class T>
struct Normal {
  Vec<T> below;
  Vec<T> density;
};
template <class T>
GRADRING_INLINE Normal<T> normal(Vec<T> x) noexcept {
  using F = Float<T>;
  const Vec<T> a = at_most<T>(abs<T>(x), F::kNormalEdge);
  const Vec<T> upper = from_bits<T>(bits_of<T>(a) & broadcast_bits<T>(F::kUpperHalf));
  const Vec<T> rest = (a - upper) * (a + upper);
  const Reduced<T> reduced = reduce<T>(at_least<T>(upper * upper * T(-0.5), F::kExpLow), F::kBias - 1);
  const Vec<T> r = reduced.r - rest * T(0.5);
  const Vec<T> twice = (r + r) * (polynomial<T, typename F::Exp>(r) * r + T(1)) + T(2);  // as in exp
  const Vec<T> e = twice * power_of_two<T>(reduced.shifted);
  const Vec<T> t = T(5) / (a + T(5));
  const Vec<T> beyond = e * (t * polynomial<T, typename F::Tail>(t + t - T(1)));
  return {x < Vec<T>{} ? beyond : T(1) - beyond, e * T(0.3989422804014327)};
}

// a - b modulo 2^bits: signed integers may not overflow.
template <class T>
GRADRING_INLINE IntVec<T> wrapping_difference(IntVec<T> a, IntVec<T> b) noexcept {
  using Unsigned = Vec<std::make_unsigned_t<typename Float<T>::Int>>;
  const Unsigned difference = __builtin_bit_cast(Unsigned, a) - __builtin_bit_cast(Unsigned, b);
  return __builtin_bit_cast(IntVec<T>, difference);
}

// log(x) for x = m 2^k, normal and positive. For other x the result has no meaning, and the caller replaces it.
template <class T>
GRADRING_INLINE Vec<T> log_normal(Vec<T> x, Vec<T> exponent_offset) noexcept {
  using F = Float<T>;
  const IntVec<T> base = broadcast_bits<T>(F::kSqrtHalfBits);
  const IntVec<T> offset = wrapping_difference<T>(bits_of<T>(x), base);
  const IntVec<T> mantissa = broadcast_bits<T>((typename F::Int(1) << F::kMantissaBits) - 1);
  const Vec<T> f = from_bits<T>((offset & mantissa) + base) - T(1);
  const IntVec<T> exponent = offset >> F::kMantissaBits;
  const Vec<T> k = from_bits<T>(exponent + broadcast_bits<T>(F::kMagicBits)) - F::kMagic + exponent_offset;
  const Vec<T> s = f / (f + T(2));
  const Vec<T> z = s * s;
  // Use 2 s = f - s f, so that the leading term is f itself, which is exact.
  const Vec<T> small = k * F::kLn2Low - s * (f - z * polynomial<T, typename F::Log>(z));
  return k * F::kLn2High + (f + small);
}

template <class T>
GRADRING_INLINE Vec<T> log(Vec<T> x) noexcept {
  using F = Float<T>;
  constexpr T kUp = static_cast<T>(typename F::Int(1) << F::kMantissaBits);
  const auto tiny = x < F::kMinNormal;
  const Vec<T> zero{};
  const Vec<T> scaled = tiny ? x * kUp : x;
  Vec<T> y = log_normal<T>(scaled, tiny ? broadcast<T>(-F::kMantissaBits) : zero);
  y = x < F::kInfinity ? y : x;  // +Inf and NaN
  y = x == zero ? broadcast<T>(-F::kInfinity) : y;
  return x < zero ? broadcast<T>(F::kNaN) : y;
}

// log(1 + x) for 0 <= x <= 1 (what softplus and log-sum-exp of two need); NaN stays NaN.
template <class T>
GRADRING_INLINE Vec<T> log1p_unit(Vec<T> x) noexcept {
  const Vec<T> u = x + T(1);
  const Vec<T> lost = x - (u - T(1));
  const Vec<T> y = log_normal<T>(u, Vec<T>{}) + lost / u;
  return x == x ? y : x;
}

// log(1 + exp(x)), stable.
template <class T>
GRADRING_INLINE Vec<T> softplus(Vec<T> x) noexcept {
  const Vec<T> zero{};
  return maximum<T>(zero, x) + log1p_unit<T>(exp<T>(-abs<T>(x)));
}

}  // namespace math

}  // namespace gradring::GRADRING_ISA_NAMESPACE
