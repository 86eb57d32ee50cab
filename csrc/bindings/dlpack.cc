#include "bindings/dlpack.h"

#include <string>
#include <utility>

namespace gradring::dlpack {

namespace {

constexpr const char* kName = "dltensor";
constexpr const char* kVersionedName = "dltensor_versioned";

// A struct of DLPack, and what it points to.
template <class M>
struct Owner {
  M managed{};
  Exported exported;
};

bool is_ending() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return !Py_IsInitialized() || Py_IsFinalizing();
#else
  return !Py_IsInitialized() || _Py_IsFinalizing();
#endif
}

// Any thread may delete a tensor at any time, even a thread without the GIL. Once the interpreter has begun to end, no thread may
// touch Python's objects, so this function then leaks the owner.
template <class M>
void delete_managed(M* managed) {
  auto* const owner = static_cast<Owner<M>*>(managed->context);
  if (is_ending()) {
    (void)owner->exported.owner.release();
    delete owner;
    return;
  }
  const PyGILState_STATE state = PyGILState_Ensure();
  delete owner;
  PyGILState_Release(state);
}

template <class M>
M* managed_of(Exported exported) {
  auto owner = std::make_unique<Owner<M>>();
  owner->exported = std::move(exported);
  Exported& e = owner->exported;
  Tensor& tensor = owner->managed.tensor;
  tensor.data = reinterpret_cast<void*>(e.address);
  tensor.device = {kCuda, e.device};
  tensor.rank = static_cast<int32_t>(e.shape.size());
  tensor.dtype = e.dtype;
  tensor.shape = e.shape.data();
  tensor.strides = e.strides.data();
  owner->managed.context = owner.get();
  owner->managed.deleter = &delete_managed<M>;
  return &owner.release()->managed;
}

// The destructor of a capsule: deletes the tensor, unless a consumer has taken it over.
template <class M, const char* const* kCapsuleName>
void destroy(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, *kCapsuleName)) return;  // a consumer has renamed it
  auto* const managed = static_cast<M*>(PyCapsule_GetPointer(capsule, *kCapsuleName));
  managed->deleter(managed);
}

template <class M, const char* const* kCapsuleName>
py::capsule capsule_of(Exported exported) {
  M* const managed = managed_of<M>(std::move(exported));
  PyObject* const made = PyCapsule_New(managed, *kCapsuleName, &destroy<M, kCapsuleName>);
  if (!made) {
    managed->deleter(managed);
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::capsule>(made);
}

}  // namespace

py::capsule make_capsule(Exported exported, bool versioned) {
  if (!versioned) return capsule_of<Managed, &kName>(std::move(exported));
  const uint64_t flags = (exported.read_only ? kReadOnly : 0) | (exported.copied ? kCopied : 0);
  py::capsule capsule = capsule_of<Versioned, &kVersionedName>(std::move(exported));
  auto* const managed = static_cast<Versioned*>(PyCapsule_GetPointer(capsule.ptr(), kVersionedName));
  managed->version = {1, 1};
  managed->flags = flags;
  return capsule;
}

Imported::Imported(const py::object& capsule) {
  const auto take = [&](const char* name, const char* used) -> void* {
    if (!PyCapsule_IsValid(capsule.ptr(), name)) return nullptr;
    void* const found = PyCapsule_GetPointer(capsule.ptr(), name);
    if (PyCapsule_SetName(capsule.ptr(), used) != 0) throw py::error_already_set();
    return found;
  };
  versioned_ = static_cast<Versioned*>(take(kVersionedName, "used_dltensor_versioned"));
  if (!versioned_) plain_ = static_cast<Managed*>(take(kName, "used_dltensor"));
  if (!versioned_ && !plain_) {
    throw py::type_error("[from_dlpack] __dlpack__ gave a " + std::string(Py_TYPE(capsule.ptr())->tp_name) +
                         ": must be a capsule that holds a tensor and was not consumed");
  }
  if (versioned_ && versioned_->version.major > 1) {
    const std::string text = "[from_dlpack] the tensor is of DLPack " + std::to_string(versioned_->version.major) +
                             ": must be of version 1 or older";
    if (versioned_->deleter) versioned_->deleter(versioned_);
    versioned_ = nullptr;
    throw py::buffer_error(text);
  }
}

Imported::~Imported() {
  if (versioned_ && versioned_->deleter) versioned_->deleter(versioned_);
  if (plain_ && plain_->deleter) plain_->deleter(plain_);
}

}  // namespace gradring::dlpack
