#include "loader/transforms/window.h"

#include <algorithm>
#include <cstring>

#include "ops/dispatch.h"
#include "runtime/round_up.h"

namespace gradring {

GRADRING_DECLARE_KERNELS(TransformKernels, transform_kernels)

namespace {

// How many bytes of a window go through the chain at a time: a quarter of a first-level cache.
constexpr int64_t kStripBytes = 8 << 10;

// One axis of a window. Place i is taken from place start + step * i of the image if lo <= i < hi; elsewhere it is zero.
struct Axis {
  int64_t start = 0;
  int64_t step = 1;
  int64_t lo = 0;
  int64_t hi = 0;
  int64_t length = 0;

  void flip() noexcept {
    start += step * (length - 1);
    step = -step;
    const int64_t old = lo;
    lo = length - hi;
    hi = length - old;
  }
  void crop(int64_t offset, int64_t wanted) noexcept {
    start += step * offset;
    lo = std::clamp<int64_t>(lo - offset, 0, wanted);
    hi = std::clamp<int64_t>(hi - offset, lo, wanted);
    length = wanted;
  }
};

}  // namespace

struct WindowStage::Window {
  Axis rows;
  Axis columns;
};

WindowStage::WindowStage(ImageShape image, size_t element_bytes, const std::vector<WindowStep>& steps,
                         std::unique_ptr<const ChainStage> then)
    : in_(image),
      out_(image),
      element_bytes_(element_bytes),
      pixel_bytes_(image.channels * static_cast<int64_t>(element_bytes)),
      steps_(steps),
      then_(std::move(then)) {
  for (const WindowStep& step : steps_) {
    if (step.kind != WindowStep::Kind::kCrop) continue;
    out_.height = step.height;
    out_.width = step.width;
  }
  const TransformKernels& kernels = GRADRING_KERNELS(transform_kernels);
  reverse_ = pixel_bytes_ < 13 ? kernels.reverse_pixels[pixel_bytes_] : nullptr;
}

WindowStage::Window WindowStage::draw(const RowKey& key) const noexcept {
  Window window{{0, 1, 0, in_.height, in_.height}, {0, 1, 0, in_.width, in_.width}};
  for (const WindowStep& step : steps_) {
    const PhiloxWords words = random_words(key, step.place);
    if (step.kind == WindowStep::Kind::kCrop) {
      const int64_t down = uniform(words[0], window.rows.length + 2 * step.padding - step.height + 1);
      const int64_t right = uniform(words[1], window.columns.length + 2 * step.padding - step.width + 1);
      window.rows.crop(down - step.padding, step.height);
      window.columns.crop(right - step.padding, step.width);
    } else if (words[0] < step.threshold) {
      (step.kind == WindowStep::Kind::kFlipColumns ? window.columns : window.rows).flip();
    }
  }
  return window;
}

void WindowStage::copy_rows(const Window& window, const std::byte* plane, int64_t first, int64_t rows,
                            std::byte* to) const noexcept {
  const Axis& columns = window.columns;
  const int64_t row_bytes = out_.width * pixel_bytes_;
  const int64_t left = columns.lo * pixel_bytes_;
  const int64_t pixels = columns.hi - columns.lo;
  const int64_t right = (out_.width - columns.hi) * pixel_bytes_;
  // The source's first pixel of the run, in ascending order.
  const int64_t run = columns.step > 0 ? columns.start + columns.lo : columns.start - (columns.hi - 1);
  for (int64_t y = first; y < first + rows; ++y, to += row_bytes) {
    if (y < window.rows.lo || y >= window.rows.hi || pixels == 0) {
      std::memset(to, 0, static_cast<size_t>(row_bytes));
      continue;
    }
    const std::byte* from = plane + ((window.rows.start + window.rows.step * y) * in_.width + run) * pixel_bytes_;
    if (left > 0) std::memset(to, 0, static_cast<size_t>(left));
    if (columns.step > 0) {
      std::memcpy(to + left, from, static_cast<size_t>(pixels * pixel_bytes_));
    } else if (reverse_ != nullptr) {
      reverse_(to + left, from, pixels);
    } else {
      for (int64_t i = 0; i < pixels; ++i) {
        std::memcpy(to + left + i * pixel_bytes_, from + (pixels - 1 - i) * pixel_bytes_,
                    static_cast<size_t>(pixel_bytes_));
      }
    }
    if (right > 0) std::memset(to + row_bytes - right, 0, static_cast<size_t>(right));
  }
}

int64_t WindowStage::strip_rows() const noexcept {
  return std::clamp<int64_t>(kStripBytes / (out_.width * pixel_bytes_), 1, out_.height);
}

size_t WindowStage::scratch_bytes() const noexcept {
  if (then_ == nullptr) return 0;
  return round_up(static_cast<size_t>(strip_rows() * out_.width * pixel_bytes_));
}

Status WindowStage::run(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch) const noexcept {
  const Window window = draw(key);
  const int64_t in_plane = in_.height * in_.width * pixel_bytes_;
  const int64_t out_plane = out_.height * out_.width * out_.channels;
  if (then_ == nullptr) {
    for (int64_t plane = 0; plane < in_.planes; ++plane) {
      copy_rows(window, from + plane * in_plane, 0, out_.height,
                to + plane * out_plane * static_cast<int64_t>(element_bytes_));
    }
    return {};
  }
  const int64_t strip = strip_rows();
  const int64_t row_elements = out_.width * out_.channels;
  for (int64_t plane = 0; plane < in_.planes; ++plane) {
    for (int64_t y = 0; y < out_.height; y += strip) {
      const int64_t rows = std::min(strip, out_.height - y);
      copy_rows(window, from + plane * in_plane, y, rows, scratch);
      to = then_->run_part(scratch, to, plane * out_plane + y * row_elements, rows * row_elements);
    }
  }
  return {};
}

}  // namespace gradring
