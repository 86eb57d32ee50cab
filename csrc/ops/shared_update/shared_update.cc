// | variable | writer                | readers     | order   | why                                                            |
// |----------|-----------------------|-------------|---------|----------------------------------------------------------------|
// | place    | every worker's pushes | all workers | relaxed | an element of the parameters: see shared_parameters.h          |
#include "ops/shared_update/shared_update.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "ops/sgd/sgd.h"

namespace gradring {

namespace {

static_assert(std::atomic_ref<float>::is_always_lock_free && std::atomic_ref<double>::is_always_lock_free);

// This many elements are loaded, updated and stored together: four cache lines of float32.
constexpr int64_t kTogether = 64;

template <class T>
T* shared_elements(const SharedView& view, int64_t begin) noexcept {
  return reinterpret_cast<T*>(view.parameters().data()) + begin;
}

template <class T>
void load_all(T* from, int64_t count, T* to) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const std::atomic_ref<T> place(from[i]);
    to[i] = place.load(std::memory_order_relaxed);
  }
}

template <class T>
void store_all(const T* from, int64_t count, T* to) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const std::atomic_ref<T> place(to[i]);
    place.store(from[i], std::memory_order_relaxed);
  }
}

template <class T>
struct Pushing {
  SharedParameters& parameters;
  const PushSgd<T>& push;
  bool looks;
  uint64_t lost = 0, counted = 0, retried = 0;

  void update(T* values, const T* gradient, int64_t count) const noexcept {
    SgdArguments<T> g;
    g.n = count, g.param = values, g.grad = gradient;
    g.lr = push.lr, g.weight_decay = push.decay, g.grad_scale = push.scale;
    sgd_update(Lane{}, g);
  }

  void run(T* shared, T* own, const T* gradient, int64_t count) noexcept {
    for (int64_t at = 0; at < count; at += kTogether) {
      const int64_t n = std::min(kTogether, count - at);
      load_all(shared + at, n, own + at);
      if (push.way == Push::kAtomic) {
        swap(shared + at, own + at, gradient + at, n);
      } else {
        overwrite(shared + at, own + at, gradient + at, n);
      }
    }
  }

  void swap(T* shared, T* own, const T* gradient, int64_t n) noexcept {
    T before[kTogether];
    std::copy(own, own + n, before);
    update(own, gradient, n);
    parameters.loaded();
    for (int64_t i = 0; i < n; ++i) {
      const std::atomic_ref<T> place(shared[i]);
      // Compares bits, so an element that is NaN or -0 is found as it is. A failure loads the element again.
      while (!place.compare_exchange_strong(before[i], own[i], std::memory_order_relaxed)) {
        ++retried;
        own[i] = before[i];
        update(own + i, gradient + i, 1);
      }
    }
  }

  void overwrite(T* shared, T* own, const T* gradient, int64_t n) noexcept {
    if (!looks) {
      update(own, gradient, n);
      parameters.loaded();
      store_all(own, n, shared);
      return;
    }
    T before[kTogether];
    std::copy(own, own + n, before);
    update(own, gradient, n);
    parameters.loaded();
    for (int64_t i = 0; i < n; ++i) {
      const std::atomic_ref<T> place(shared[i]);
      const T found = place.exchange(own[i], std::memory_order_relaxed);
      lost += !(found == before[i]) && !(found != found && before[i] != before[i]);
    }
    counted += static_cast<uint64_t>(n);
  }

  // Elements of one stripe after another, each under its lock.
  void run_locked(int64_t begin, T* shared, T* own, const T* gradient, int64_t count) noexcept {
    for (int64_t at = 0; at < count;) {
      const int64_t n = std::min(count - at, kStripe - (begin + at) % kStripe);
      const std::lock_guard<Lock> hold(parameters.lock_of(begin + at));
      run(shared + at, own + at, gradient + at, n);
      at += n;
    }
  }

  void run_any(int64_t begin, T* shared, T* own, const T* gradient, int64_t count) noexcept {
    if (push.way == Push::kLocked) return run_locked(begin, shared, own, gradient, count);
    run(shared, own, gradient, count);
  }
};

template <class T>
Pushing<T> pushing(const SharedView& view, const PushSgd<T>& push) noexcept {
  return {view.parameters(), push, push.way == Push::kHogwild && view.looks()};
}

}  // namespace

template <class T>
void read_shared(const Lane& lane, const SharedPart<T>& part) noexcept {
  const Range mine = split(lane, part.count, kFlatGrain);
  load_all(shared_elements<T>(*part.view, part.begin + mine.begin), mine.end - mine.begin, part.own + mine.begin);
}

template <class T>
void read_shared_rows(const Lane& lane, const SharedRows<T>& g) noexcept {
  // Two lanes may read the same row into the snapshot, so each takes its own columns.
  const Range columns = split(lane, g.columns, 64 / static_cast<int64_t>(sizeof(T)));
  for (int64_t i = 0; i < g.count; ++i) {
    const int64_t row = g.ids[i];
    if (row < 0 || row >= g.rows) continue;
    const int64_t at = row * g.columns + columns.begin;
    load_all(shared_elements<T>(*g.view, g.begin + at), columns.end - columns.begin, g.own + at);
  }
}

template <class T>
void take_shared(const Lane& lane, const SharedPart<T>& part) noexcept {
  SharedParameters& parameters = part.view->parameters();
  lane.barrier();  // no other lane still waits for this lock, for a row that it pushes
  if (lane.index == 0) parameters.lock_of(part.begin).lock();
  lane.barrier();
  read_shared(lane, part);
  if (lane.index == 0) parameters.loaded();
}

template <class T>
void give_shared(const Lane& lane, const SharedPart<T>& part) noexcept {
  lane.barrier();  // all lanes have written their elements of the part, and of the optimizer's state
  const Range mine = split(lane, part.count, kFlatGrain);
  store_all(part.own + mine.begin, mine.end - mine.begin, shared_elements<T>(*part.view, part.begin + mine.begin));
  lane.barrier();
  if (lane.index == 0) part.view->parameters().lock_of(part.begin).unlock();
}

template <class T>
void push_sgd(const Lane& lane, const SharedPart<T>& part, const PushSgd<T>& push) noexcept {
  const Range mine = split(lane, part.count, kFlatGrain);
  Pushing<T> made = pushing(*part.view, push);
  const int64_t begin = part.begin + mine.begin;
  made.run_any(begin, shared_elements<T>(*part.view, begin), part.own + mine.begin, push.gradient + mine.begin,
               mine.end - mine.begin);
  part.view->parameters().add_counts(part.view->worker(), made.lost, made.counted, made.retried);
}

template <class T>
void push_sgd_rows(const Lane& lane, const SharedRows<T>& g, const PushSgd<T>& push) noexcept {
  auto* const rows = reinterpret_cast<int64_t*>(lane.shared_scratch());
  if (lane.index == 0) {
    for (int64_t i = 0; i < g.count; ++i) rows[i] = g.ids[i];
    std::sort(rows, rows + g.count);
  }
  lane.barrier();
  Pushing<T> made = pushing(*g.view, push);
  const Range mine = split(lane, g.count);
  for (int64_t i = mine.begin; i < mine.end; ++i) {
    const int64_t row = rows[i];
    if (row < 0 || row >= g.rows || (i > 0 && rows[i - 1] == row)) continue;
    const int64_t at = row * g.columns, begin = g.begin + at;
    made.run_any(begin, shared_elements<T>(*g.view, begin), g.own + at, push.gradient + at, g.columns);
  }
  g.view->parameters().add_counts(g.view->worker(), made.lost, made.counted, made.retried);
}

#define GRADRING_SHARED_UPDATE(T)                                                        \
  template void read_shared(const Lane&, const SharedPart<T>&) noexcept;                 \
  template void read_shared_rows(const Lane&, const SharedRows<T>&) noexcept;            \
  template void take_shared(const Lane&, const SharedPart<T>&) noexcept;                 \
  template void give_shared(const Lane&, const SharedPart<T>&) noexcept;                 \
  template void push_sgd(const Lane&, const SharedPart<T>&, const PushSgd<T>&) noexcept; \
  template void push_sgd_rows(const Lane&, const SharedRows<T>&, const PushSgd<T>&) noexcept;
GRADRING_SHARED_UPDATE(float)
GRADRING_SHARED_UPDATE(double)
#undef GRADRING_SHARED_UPDATE

}  // namespace gradring
