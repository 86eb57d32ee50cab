// The structs of DLPack 1.1, as its specification lays them out, and capsules that own them. Needs the GIL, except for deleters.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace py = pybind11;

namespace gradring::dlpack {

struct Device {
  int32_t type;  // kCpu, kCuda, ...
  int32_t number;
};
inline constexpr int32_t kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13;

struct DataType {
  uint8_t code;  // 0 int, 1 unsigned, 2 float, 4 bfloat, 5 complex, 6 bool
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t rank;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null: no gaps
  uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed* self);
};

struct Version {
  uint32_t major, minor;
};
inline constexpr uint64_t kReadOnly = 1, kCopied = 2;  // flags

struct Versioned {
  Version version;
  void* context;
  void (*deleter)(Versioned* self);
  uint64_t flags;
  Tensor tensor;
};

// An array that this process exports. `owner` keeps its memory alive.
struct Exported {
  py::object owner;
  uintptr_t address = 0;
  std::vector<int64_t> shape, strides;  // strides in elements
  DataType dtype{};
  int32_t device = 0;
  bool read_only = false, copied = false;
};

// A capsule "dltensor_versioned" or "dltensor", whose tensor lives until its consumer deletes it.
py::capsule make_capsule(Exported exported, bool versioned);

// A tensor that came in a capsule. Its deleter is called when this object dies.
class Imported {
 public:
  // Takes the tensor out of the capsule, which is then "used". Throws TypeError for another object, BufferError for a tensor of a
  // later version than 1.
  explicit Imported(const py::object& capsule);
  ~Imported();
  Imported(const Imported&) = delete;
  Imported& operator=(const Imported&) = delete;

  const Tensor& tensor() const noexcept { return versioned_ ? versioned_->tensor : plain_->tensor; }
  bool read_only() const noexcept { return versioned_ && (versioned_->flags & kReadOnly) != 0; }
  uintptr_t address() const noexcept {
    return reinterpret_cast<uintptr_t>(tensor().data) + static_cast<uintptr_t>(tensor().byte_offset);
  }

 private:
  Managed* plain_ = nullptr;
  Versioned* versioned_ = nullptr;
};

}  // namespace gradring::dlpack
