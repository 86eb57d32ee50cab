// The stages that are not merged with others: one-hot, and users' functions.
#pragma once

#include <cstdint>
#include <memory>

#include "loader/transforms/plan.h"
#include "ops/cast/cast.h"

namespace gradring {

class OneHotStage final : public Stage {
 public:
  // `spec` describes the labels, whose dtype is an integer one.
  OneHotStage(const FieldSpec& spec, int64_t classes, Dtype dtype);

  Status run(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch) const noexcept override;

 private:
  Cast to_int64_;
  bool signed_;
  size_t label_bytes_;
  int64_t labels_;
  int64_t classes_;
  size_t element_bytes_;
  std::byte one_[8];  // the number 1 in the target dtype
};

class CallStage final : public Stage {
 public:
  CallStage(std::shared_ptr<const RowFunction> function, RandomPlace place)
      : function_(std::move(function)), place_(place) {}

  Status run(const std::byte* from, std::byte* to, const RowKey& key, std::byte*) const noexcept override {
    const PhiloxWords words = random_words(key, place_);
    return function_->call(from, to, key, static_cast<uint64_t>(words[1]) << 32 | words[0]);
  }

 private:
  std::shared_ptr<const RowFunction> function_;
  RandomPlace place_;
};

}  // namespace gradring
