// shared_update: how a worker of an asynchronous training reads the shared parameters (shared_parameters.h), and pushes the
// update of a step to them. Every element is read and written by relaxed atomics, which are plain moves on x86-64 and ARM.
//
// The arithmetic of a push is the serial kernel's own: the elements are loaded into the worker's memory, the optimizer's kernel
// runs there, and what it has made is stored.
#pragma once

#include <cstdint>

#include "ops/embedding/embedding.h"
#include "ops/shared_update/shared_parameters.h"
#include "ops/work.h"

namespace gradring {

// Elements of the parameters, from `begin` on, and the worker's snapshot of them.
template <class T>
struct SharedPart {
  SharedView* view = nullptr;
  int64_t begin = 0, count = 0;
  T* own = nullptr;
};

// Rows of a matrix of parameters whose first element is `begin`, by their numbers. An id that names no row is left out.
template <class T>
struct SharedRows {
  SharedView* view = nullptr;
  int64_t begin = 0, rows = 0, columns = 0;
  Ids ids;
  int64_t count = 0;  // how many ids there are
  T* own = nullptr;   // the worker's snapshot of the matrix
};

enum class Push : uint8_t { kLocked, kAtomic, kHogwild };
inline constexpr const char* kPushes[] = {"locked", "atomic", "hogwild"};

// Plain SGD: param -= lr * (gradient * scale + decay * param).
template <class T>
struct PushSgd {
  const T* gradient = nullptr;  // with the layout of the snapshot
  double lr = 0, decay = 0, scale = 1;
  Push way = Push::kLocked;
};

template <class T>
void read_shared(const Lane& lane, const SharedPart<T>& part) noexcept;
template <class T>
void read_shared_rows(const Lane& lane, const SharedRows<T>& rows) noexcept;

// The first half of an update under a lock: takes the lock of the part's stripe, and reads the part.
template <class T>
void take_shared(const Lane& lane, const SharedPart<T>& part) noexcept;
// The second half: writes the part, and gives the lock back.
template <class T>
void give_shared(const Lane& lane, const SharedPart<T>& part) noexcept;

template <class T>
void push_sgd(const Lane& lane, const SharedPart<T>& part, const PushSgd<T>& push) noexcept;
// Pushes each row that the ids name, once. Its scratch memory holds the sorted ids.
template <class T>
void push_sgd_rows(const Lane& lane, const SharedRows<T>& rows, const PushSgd<T>& push) noexcept;

}  // namespace gradring
