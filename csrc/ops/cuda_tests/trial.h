// A trial of an op's CUDA kernel, on the software device or on a GPU: a call with random operands. Its results must
// have the same bits in every schedule, and agree with the op's CPU kernel in double, which other tests compare with
// the reference.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "ops/op.h"

namespace gradring::testing {

using Random = std::mt19937_64;

inline int64_t between(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}
inline bool chance(Random& random, int one_in) { return between(random, 1, one_in) == 1; }

// What an operand holds before the call: its elements as numbers, for any dtype.
struct Given {
  Dtype dtype = kNoDtype;  // kNoDtype: absent
  std::vector<int64_t> shape;
  std::vector<double> values;  // row by row
  // How many elements lie between two rows of a matrix, and whether memory holds its transpose, if the op takes such layouts.
  int64_t gap = 0;
  bool turned = false;

  int64_t count() const;               // the number of elements
  int64_t stored() const;              // the same in memory, gaps included
  size_t place(size_t element) const;  // where an element lies in memory
};

enum class Compare : uint8_t {
  kDouble,  // compare with the CPU's kernel in double, within a tolerance relative to the result
  kBits,    // compare with the CPU's kernel in the same dtype, bit for bit
};

struct Trial {
  const OpSchema* op = nullptr;
  Dtype dtype = Dtype::kFloat32;  // the dtype of operands that may be float32, float64 or bfloat16
  std::vector<Given> operands;
  std::vector<AttributeValue> attributes;
  StepRecord record;
  std::vector<int64_t> samples;  // the samples' numbers, for the step record
  std::vector<double> rates;     // the learning rates, for the step record
  Compare compare = Compare::kDouble;
  double tolerance = 1e-5;
  bool stops = true;         // it must write no result after a fault; false for the library's products
  bool spoiled = false;      // there are NaNs among its operands
  std::vector<bool> wanted;  // results
  std::vector<int> lies_on;  // the operand whose memory a result shares, or -1
  std::vector<int> offsets;  // how many bytes after a 16-byte boundary each operand begins
  int processors = 2;        // of the device: they decide the number of blocks

  Trial(const char* name, Dtype real);

  int place(const char* operand) const;
  Given& at(const char* operand) { return operands[static_cast<size_t>(place(operand))]; }
  bool knows(const char* operand) const;
  void set(const char* attribute, double value);

  // Gives an operand normally distributed numbers of the trial's dtype.
  void give(Random& random, const char* operand, std::vector<int64_t> shape, double scale = 1, double offset = 0);
  // Gives an operand integers from `low` to `high`.
  void give(Random& random, const char* operand, std::vector<int64_t> shape, Dtype dtype, int64_t low, int64_t high);
  void make_positive(const char* operand);
  // The number that an operand of the trial's dtype holds.
  double as_stored(double value) const;
  // The dtype in which an operand of a dtype is stored: float64 if the trial's operands are widened.
  Dtype stored_as(Dtype given, bool widened) const;
  void want(const char* operand, bool yes) { wanted[static_cast<size_t>(place(operand))] = yes; }

  // Fills in the other operands: step fields, those with the shape of a given operand, results, and some optional ones.
  void complete(Random& random);
  // Puts NaN and infinities into an operand.
  void spoil(Random& random, const char* operand);

  std::string text() const;
};

// Runs trial number `turn` of an op in eager, lazy and a seeded schedule, each with another order of blocks and threads; over the
// turns, ten seeds take part. The results must be the same. It also runs it with a record that has a fault: then nothing
// may change.
void check(Random& random, Trial trial, int turn);

// Makes each CUDA call that preparing and running the op makes fail once, and each kernel that it runs, in one schedule after the
// other: the error must name the op and the call, nothing may stay allocated, and the device must be usable afterwards, or the
// error must say that it is lost.
void check_failures(const Trial& trial);

// Returns a random extent up to `most`. Two of three are at an edge of vectors, warps, tiles or blocks: each edge in its turn.
int64_t edge(Random& random, int64_t most);

// How many random shapes each op is tried with: GRADRING_CUDA_SHAPES, or by default a few.
int shapes();

}  // namespace gradring::testing
