// WindowStage: crops and flips of an image, composed into one window for each sample.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "loader/transforms/chain.h"
#include "loader/transforms/image.h"
#include "loader/transforms/plan.h"

namespace gradring {

struct WindowStep {
  enum class Kind : uint8_t { kFlipColumns, kFlipRows, kCrop };
  Kind kind = Kind::kCrop;
  uint64_t threshold = 0;  // a flip happens if its random 32-bit word is below this
  int64_t height = 0;      // the height of the crop
  int64_t width = 0;
  int64_t padding = 0;
  RandomPlace place;
};

class WindowStage final : public Stage {
 public:
  // `then` may be null. If not, it runs on the window, strip by strip, while the strips are in the cache.
  WindowStage(ImageShape image, size_t element_bytes, const std::vector<WindowStep>& steps,
              std::unique_ptr<const ChainStage> then);

  Status run(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch) const noexcept override;
  size_t scratch_bytes() const noexcept override;

 private:
  struct Window;
  Window draw(const RowKey& key) const noexcept;
  void copy_rows(const Window& window, const std::byte* plane, int64_t first, int64_t rows,
                 std::byte* to) const noexcept;
  int64_t strip_rows() const noexcept;

  ImageShape in_;
  ImageShape out_;
  size_t element_bytes_;
  int64_t pixel_bytes_;
  std::vector<WindowStep> steps_;
  std::unique_ptr<const ChainStage> then_;
  void (*reverse_)(std::byte* to, const std::byte* from, int64_t pixels);
};

}  // namespace gradring
