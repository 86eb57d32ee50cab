// Replicas: data-parallel training on threads of one process.
//
// Each replica is an engine with a team and temporaries of its own. It runs its rows of each batch into a plane of gradients of its
// own. Parameters, optimizer state and buffers exist once, and the replicas update them together (runtime/meeting.h).
// Rows go to replicas in order: of n rows, replica r of p has those from n r / p to n (r + 1) / p. If several processes have replicas,
// then either each process has batches of its own, or (with shards) each batch is divided among the replicas of all processes in the
// same way, and a process reads the rows of its own replicas.
//
// | variable       | writer                | readers         | order             | why                                        |
// |----------------|-----------------------|-----------------|-------------------|--------------------------------------------|
// | Batches::told  | replica 0             | other replicas  | Signal: release / | the next batch, or why there is none       |
// |                |                       |                 | acquire           |                                            |
// | Turn::holders  | replica 0, release    | release         | store relaxed,    | told carries it; the last to release a     |
// |                |                       |                 | sub acq_rel       | batch hands it back to the source          |
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gradring/export.h"
#include "program/engine.h"
#include "runtime/meeting.h"
#include "runtime/rank_steps.h"

namespace gradring {

// The rows of a batch that a replica has.
constexpr Range rows_of(int64_t rows, int replica, int replicas) noexcept {
  return {rows * replica / replicas, rows * (replica + 1) / replicas};
}

// The meetings of all replicas. All enter before a run of steps, and each leaves after it.
struct ReplicaMeetings {
  std::vector<Meeting*> of;
  // Of this process among those that divide each batch among their replicas.
  int process = 0, processes = 1;
  void (*enter)(void* owner) noexcept = nullptr;
  void (*leave)(void* owner, int replica) noexcept = nullptr;
  std::shared_ptr<void> owner;
};

class GRADRING_API Replicas {
 public:
  // options.lanes is the number of lanes of each replica. Throws Error.
  Replicas(const Arenas& arenas, const EngineOptions& options, ReplicaMeetings meetings);
  ~Replicas();
  Replicas(const Replicas&) = delete;
  Replicas& operator=(const Replicas&) = delete;

  int size() const noexcept { return static_cast<int>(engines_.size()); }
  Engine& engine(int replica) noexcept { return *engines_[static_cast<size_t>(replica)]; }
  const Engine& engine(int replica) const noexcept { return *engines_[static_cast<size_t>(replica)]; }

  void set_arenas(const Arenas& arenas);  // throws std::bad_alloc, and changes nothing then
  void clear() noexcept;
  // Adds the program of one replica for its part of batches of `rows` rows, which may be no rows.
  Executor& add(Mode mode, int64_t rows, int replica, const Program& program);
  // Whether all replicas have programs for batches of `rows` rows.
  bool ready(Mode mode, int64_t rows) const noexcept;

  // Trains in the same way as Engine::chunk.
  ChunkResult chunk(Feed& feed, const ChunkOptions& options, Totals* totals) noexcept;
  // Does the same as flush_updates. `rows` is the size of a batch for which there are programs.
  ChunkResult flush(int64_t rows, const ChunkOptions& options, Totals* totals) noexcept;

 private:
  class Share;
  struct Batches;

  // The rows of a replica in a batch of `rows` rows, counted from the first row of this process.
  Range own_rows(int64_t rows, int replica) const noexcept;
  template <class Body>
  int run(const Body& body) noexcept;

  std::vector<std::unique_ptr<Engine>> engines_;
  ReplicaMeetings meetings_;
  Team crew_;
  std::vector<ChunkResult> results_;
  std::vector<int64_t> row_bytes_;  // the bytes of a row of each field of a batch
};

}  // namespace gradring
