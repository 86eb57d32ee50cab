// Transforms: what happens to a row on its way from the source to the batch.
//
// The transforms of a field are compiled once into a RowPlan, which takes a source row (where it lies) to the finished
// row (where the batch lies) in one pass: intermediate values stay in this core's first-level cache. Shapes and dtypes are
// checked when the plan is compiled. Random numbers are Philox of (seed, epoch, sample, field, place in the list), so they do not
// depend on which worker draws them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "gradring/export.h"
#include "loader/source.h"
#include "runtime/dtype.h"
#include "runtime/status.h"

namespace gradring {

// What a transform may know about the row it is given.
struct RowKey {
  uint64_t seed = 0;
  uint64_t epoch = 0;
  int64_t sample = 0;
  const Stop* stop = nullptr;  // the same as ReadRequest::stop
};

// A user's function from row to row: a C function pointer, or a Python function, which takes the GIL itself.
class GRADRING_API RowFunction {
 public:
  virtual ~RowFunction() = default;
  virtual const char* name() const noexcept { return "function"; }  // for statistics
  // Transforms one row. `random` holds 64 random bits for this row and this place in the list. Many threads call it
  // concurrently.
  virtual Status call(const void* from, void* to, const RowKey& key, uint64_t random) const noexcept = 0;
};

// Where the channels of an image row lie. kAuto: the last axis if it is 1, 3 or 4 long, else the first if it is.
enum class ImageLayout : uint8_t { kAuto, kHwc, kChw };

// x.astype(dtype), as NumPy does it.
struct CastStep {
  Dtype dtype = Dtype::kFloat32;
};
// x * a + b, rounded after each operation; b == 0 adds nothing. Integers and half floats become float32 first.
struct ScaleStep {
  double a = 1;
  double b = 0;
};
// (x - mean) / std. One value for all, one per channel of an image or per feature of a vector, or one per element.
struct NormalizeStep {
  std::vector<double> mean;
  std::vector<double> std;
  ImageLayout layout = ImageLayout::kAuto;
};
// Integers in [0, classes) become a last axis of that length with a single 1.
struct OneHotStep {
  int64_t classes = 0;
  Dtype dtype = Dtype::kFloat32;
};
// With probability p, mirrors an image along its columns (or its rows).
struct FlipStep {
  double p = 0.5;
  bool vertical = false;
  ImageLayout layout = ImageLayout::kAuto;
};
// A window of height x width anywhere in the image surrounded by `padding` zeros.
struct CropStep {
  int64_t height = 0;
  int64_t width = 0;
  int64_t padding = 0;
  ImageLayout layout = ImageLayout::kAuto;
};
struct CallStep {
  std::shared_ptr<const RowFunction> function;
  Dtype dtype = Dtype::kFloat32;  // the dtype that it writes
  std::vector<int64_t> shape;
};
using TransformStep = std::variant<CastStep, ScaleStep, NormalizeStep, OneHotStep, FlipStep, CropStep, CallStep>;

class RowPlan;

// Makes a source whose rows are transformed. transforms[i] belongs to field i; if it is empty, rows stay as they are. The
// transforms are fused with the gather if the source can tell where its rows lie. Throws Error.
GRADRING_API std::shared_ptr<const Source> transform_source(std::shared_ptr<const Source> source,
                                                            std::vector<std::vector<TransformStep>> transforms);

}  // namespace gradring
