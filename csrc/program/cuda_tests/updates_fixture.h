// For tests of DeviceUpdates: arrays on the device with the rule that updates them, and a small training. Include this
// file after cuda/device.h.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "program/cuda/updates.h"
#include "program/cuda_tests/fixture.h"

#define MUST(call) REQUIRE((call) == cudaSuccess)

namespace gradring::testing {

using Numbers = std::map<std::string, double>;

// An op's update of one array of n elements, whose operands all lie in memory of the device.
template <class T>
struct Update {
  const OpSchema* op;
  std::vector<cuda::DeviceMemory> memory;
  std::vector<int64_t> shape, strides{static_cast<int64_t>(sizeof(T))};
  std::vector<Tensor> tensors;
  std::vector<AttributeValue> attributes;
  OpCall call;

  // values: those of the attributes that are not the default. optional: the operands that the rule has.
  Update(const char* name, int64_t n, unsigned seed, const Numbers& values, const std::vector<std::string>& optional)
      : op(find_schema(name)), shape{n} {
    const Dtype dtype = sizeof(T) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;
    for (const Operand& operand : op->operands) {
      bool there = !operand.optional;
      for (const std::string& each : optional) there |= each == operand.name;
      std::vector<T> data(static_cast<size_t>(n) + 1);
      for (T& v : data)
        v = static_cast<T>((seed = seed * 1664525 + 1013904223) >> 8) / static_cast<T>(1 << 25) + T(0.1);
      memory.push_back(to_device(data.data(), data.size() * sizeof(T)));
      tensors.push_back({});
      if (there) tensors.back() = {memory.back().data(), shape.data(), strides.data(), 1, dtype};
    }
    for (const Attribute& attribute : op->attributes) {
      AttributeValue value = attribute.otherwise;
      if (const auto found = values.find(attribute.name); found != values.end()) {
        value = attribute.type == AttributeType::kReal ? real_value(found->second)
                                                       : integer_value(static_cast<int64_t>(found->second));
      }
      attributes.push_back(value);
    }
    call.op = op, call.name = op->name, call.tensors = tensors.data(), call.attributes = attributes.data();
  }

  CudaSpan span() const {
    CudaSpan result;
    cuda_kernel(*op)->spans.fill(call, &result);
    return result;
  }
  std::vector<T> content() const {
    std::vector<T> all;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (!tensors[i]) continue;
      std::vector<T> part(static_cast<size_t>(shape[0]));
      MUST(cudaMemcpy(part.data(), memory[i].data(), part.size() * sizeof(T), cudaMemcpyDeviceToHost));
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }
};

#ifdef GRADRING_SOFTWARE_TSAN  // which sees the same orders in smaller arrays, and needs a millisecond for each thread of a kernel
inline constexpr int64_t kMore = 60;
#else
inline constexpr int64_t kMore = 4096;
#endif

// Two groups of plain SGD over four arrays, and their gradients.
struct Training {
  std::vector<std::unique_ptr<Update<float>>> all;
  std::vector<const void*> gradients;
  std::vector<void*> sums;  // memory for sums of gradients
  cuda::DeviceMemory sum_memory;
  cuda::Stream own_stream;
  cudaStream_t stream = nullptr;
  std::map<std::string, int> calls_before;  // those that had been made before `updates`
  std::unique_ptr<DeviceUpdates> updates;

  explicit Training(double limit = -1, bool check = true) {
    register_all_cuda_kernels();
    own_stream = cuda::make_stream("test");
    stream = static_cast<cudaStream_t>(own_stream.get());
    const std::vector<float> zeros(60000);
    sum_memory = to_device(zeros.data(), zeros.size() * sizeof(float));
    std::vector<UpdateGroup> groups;
    for (int64_t i = 0; i < 4; ++i) {
      all.push_back(std::make_unique<Update<float>>("sgd_update", 50 + kMore * i, 7u + static_cast<unsigned>(i),
                                                    Numbers{}, std::vector<std::string>{}));
      if (i % 2 == 0) groups.push_back({all.back()->call, i / 2, {}});
      groups.back().spans.push_back(all.back()->span());
      gradients.push_back(groups.back().spans.back().grad);
      sums.push_back(static_cast<float*>(sum_memory.data()) + 15000 * i);
    }
    UpdateOptions options;
    options.most_rates = 2, options.limit = limit, options.check = check;
    calls_before = software::calls();
    updates = std::make_unique<DeviceUpdates>(std::move(groups), options, stream);
  }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  void step(int64_t entry, double rate, void* on) {
    updates->update(gradients, {rate, 0.2}, {entry + 1, entry, 1.0, 0}, on);
  }
  void step(int64_t entry) { step(entry, 0.1, stream); }
  std::vector<float> params(void* after = nullptr) {
    MUST(cudaStreamSynchronize(after ? static_cast<cudaStream_t>(after) : stream));
    std::vector<float> result;
    for (const auto& each : all) {
      const std::vector<float> content = each->content();
      result.insert(result.end(), content.begin(), content.begin() + each->shape[0]);
    }
    return result;
  }
  UpdateLedger report() {
    UpdateLedger found;
    updates->queue_report(stream);
    CHECK(updates->take_report(true, &found));
    return found;
  }
  void set(size_t which, int64_t element, float value) {
    auto* const at = static_cast<float*>(const_cast<void*>(gradients[which])) + element;
    MUST(cudaMemcpyAsync(at, &value, sizeof value, cudaMemcpyHostToDevice, stream));
    MUST(cudaStreamSynchronize(stream));
  }
};

}  // namespace gradring::testing
