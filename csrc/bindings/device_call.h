// One eager call of an op on arrays of a device, for Python.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cuda/pool.h"
#include "cuda/stream.h"
#include "ops/cuda_run.h"
#include "ops/layout.h"
#include "ops/op.h"
#include "program/cuda/library.h"
#include "runtime/dtype.h"
#include "runtime/status.h"

namespace py = pybind11;

namespace gradring {

struct DeviceFacts {
  std::unique_ptr<cuda::Products> products;
  int processors = 0;
};

// What calls on a device share. `library` is what dlopen returned for cuBLASLt. Needs the GIL.
const DeviceFacts& device_facts(int device, uintptr_t library);

// One call, whose operands lie in the memory of a device.
class DeviceCall {
 public:
  // names: those of operands in errors, where they differ from the schema's. attributes: all, in the schema's order.
  DeviceCall(const std::string& op, std::string name, const std::vector<std::pair<std::string, std::string>>& names,
             const std::vector<std::variant<int64_t, double>>& attributes)
      : op_(find_schema(op)), name_(std::move(name)) {
    if (!op_ || attributes.size() != op_->attributes.size()) {
      throw Error(Code::kInternal, "[" + name_ + "] there is no such op, or it has other attributes");
    }
    operands_.resize(op_->operands.size());
    tensors_.resize(op_->operands.size());
    names_.resize(op_->operands.size());
    name_texts_.resize(op_->operands.size());
    for (const auto& [operand, text] : names) {
      const size_t i = place_of(operand);
      name_texts_[i] = text, names_[i] = name_texts_[i].c_str();
    }
    for (const auto& given : attributes) {
      attributes_.push_back(std::holds_alternative<double>(given) ? real_value(std::get<double>(given))
                                                                  : integer_value(std::get<int64_t>(given)));
    }
    call_ = {op_, name_.c_str(), names_.data(), tensors_.data(), attributes_.data()};
  }
  DeviceCall(const DeviceCall&) = delete;
  DeviceCall& operator=(const DeviceCall&) = delete;

  // Gives an operand. Returns whether a kernel can use it as it lies; if not, the caller gives a copy without gaps instead.
  bool set(const std::string& operand, uintptr_t address, const std::string& dtype, std::vector<int64_t> shape,
           std::vector<int64_t> strides) {
    const size_t i = place_of(operand);
    Operand& own = operands_[i];
    own.shape = std::move(shape), own.strides = std::move(strides);
    Tensor& tensor = tensors_[i];
    tensor = {reinterpret_cast<void*>(address), own.shape.data(), own.strides.data(),
              static_cast<int32_t>(own.shape.size()), dtype_named(dtype)};
    if (tensor.dtype == kNoDtype) refuse(call_, operand_name(i) + " is of dtype " + dtype + ", which no kernel has");
    if (is_dense(tensor)) return true;
    if (tensor.rank != 2) return false;
    const Layout layout = op_->operands[i].layout;
    return has_dense_vectors(layout, tensor.shape, tensor.strides, static_cast<int64_t>(size_of(tensor.dtype)),
                             layout == Layout::kMatrix);
  }
  // Whether a result may not even be the very memory of an operand.
  bool is_apart(const std::string& operand) const { return op_->operands[place_of(operand)].apart; }
  const OpCall& call() const noexcept { return call_; }
  void check() const { check_call(call_, false); }
  bool ranks_fit() const {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const auto& o = op_->operands[i];
      if (tensors_[i] && (tensors_[i].rank < o.least_rank || tensors_[i].rank > o.most_rank)) return false;
    }
    return true;
  }
  // The shape and the dtype that a result must have.
  py::tuple result(const std::string& operand) const {
    const size_t i = place_of(operand);
    const auto& o = op_->operands[i];
    Shape shape;
    result_shape(call_, static_cast<int>(i), &shape);
    Dtype dtype = static_cast<Dtype>(__builtin_ctz(o.dtypes));
    if (o.same_dtype >= 0) dtype = tensors_[static_cast<size_t>(o.same_dtype)].dtype;
    if (o.same_dtype < 0 && o.dtype_attribute >= 0) dtype = static_cast<Dtype>(call_.integer(o.dtype_attribute));
    return py::make_tuple(std::vector<int64_t>(shape.extent, shape.extent + shape.rank), dtype_name(dtype));
  }
  void run(int device, uintptr_t library, uintptr_t stream) {
    const DeviceFacts& facts = device_facts(device, library);
    const cuda::OnDevice on(name_, device);
    const CudaRun kernel = prepare_cuda_call(call_, device);
    CudaQueue queue{reinterpret_cast<void*>(stream), facts.processors, nullptr, facts.products.get()};
    const size_t bytes = cuda_scratch_bytes(call_, queue);
    if (bytes == 0) return run_cuda_call(kernel, call_, queue);
    cuda::require_no_capture(
        name_, queue.stream,
        "and its kernel needs scratch memory, which no graph can get: call the op before the capture "
        "begins, or after it has ended");
    cuda::MemoryPool& pool = cuda::MemoryPool::of(device);
    cuda::MemoryPool::Block scratch = pool.take(bytes, queue.stream);
    queue.scratch = scratch.memory.data();
    try {
      run_cuda_call(kernel, call_, queue);
    } catch (const Error&) {
      pool.give(std::move(scratch), queue.stream);
      throw;
    }
    pool.give(std::move(scratch), queue.stream);
  }
  // The mean or the sum, from the totals of a loss, which were copied to the host.
  double number(const std::string& operand, const py::buffer& totals) {
    const py::buffer_info info = totals.request();
    std::vector<Tensor> tensors = tensors_;
    tensors[place_of(operand)].data = info.ptr;
    OpCall host = call_;
    host.tensors = tensors.data();
    return op_->number(host);
  }

 private:
  struct Operand {
    std::vector<int64_t> shape, strides;
  };
  static bool is_dense(const Tensor& t) noexcept {
    int64_t step = static_cast<int64_t>(size_of(t.dtype));
    for (int axis = t.rank - 1; axis >= 0; --axis) {
      if (t.shape[axis] == 0) return true;
      if (t.shape[axis] != 1 && t.strides[axis] != step) return false;
      step *= t.shape[axis];
    }
    return true;
  }
  size_t place_of(const std::string& operand) const {
    const int i = find_operand(*op_, operand);
    if (i < 0) throw Error(Code::kInternal, "[" + name_ + "] there is no operand " + operand);
    return static_cast<size_t>(i);
  }
  std::string operand_name(size_t i) const { return call_.operand_name(static_cast<int>(i)); }

  const OpSchema* op_;
  std::string name_;
  std::vector<Operand> operands_;
  std::vector<Tensor> tensors_;
  std::vector<std::string> name_texts_;
  std::vector<const char*> names_;
  std::vector<AttributeValue> attributes_;
  OpCall call_;
};

}  // namespace gradring
