// Workers: asynchronous training. Each worker is a thread that takes a batch, reads a snapshot of the shared parameters, computes
// gradients with a team, temporaries and a batch of its own, and pushes its update (ops/shared_update). No worker waits for
// another, unless the staleness is bounded.
//
// Batches have the numbers in which the workers take them. Learning rate, Adam's t and dropout's numbers belong to the number, so
// one worker does what a serial run does, bit for bit.
//
// The staleness of an update is how many other updates came between its snapshot and its push. With a bound, a worker begins a
// batch only if that can make no update staler than the bound, which is the stale synchronous parallel of Ho et al. ("More
// Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", 2013), counted in updates.
//
// | variable | writer               | readers | order            | why                                                    |
// |----------|----------------------|---------|------------------|--------------------------------------------------------|
// | claims   | every worker         | same    | Lock: acquire,   | a round's batches, seats and result                    |
// |          |                      |         | release          |                                                        |
// | updates, | a worker, in claims  | anybody | relaxed          | sums for people, read at any time: each is right alone |
// | most,    |                      |         |                  |                                                        |
// | waits    |                      |         |                  |                                                        |
// | ended    | a worker, in claims  | workers | Signal: release, | a worker that may not begin waits for the end of some  |
// |          |                      |         | acquire          | batch                                                  |
//
// The lock `claims` is also held while the source is awaited. If the source is slower than the workers, one that has computed its
// batch waits for it too, at the end of that batch, and no timing has this wait.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gradring/export.h"
#include "ops/shared_update/shared_parameters.h"
#include "program/engine.h"

namespace gradring {

class GRADRING_API Workers {
 public:
  static constexpr int64_t kNoBound = -1;

  // How stale updates were: how many there were of each staleness, the last counter having all that were staler.
  struct Staleness {
    std::array<uint64_t, 17> updates{};
    uint64_t most = 0;
    uint64_t waits = 0;  // how often a worker had to wait before it began a batch
  };

  // `arenas` has one of kind param, which the workers share, as they do those of kind state. Each worker gets memory of its own
  // for a snapshot, and for gradients; worker 0 uses the given memory for its gradients. options.lanes is the number of lanes
  // of each worker. `staleness` is the bound, or kNoBound. Throws Error.
  Workers(const std::vector<Arenas::Memory>& arenas, const EngineOptions& options, int workers, int64_t staleness);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  int size() const noexcept { return static_cast<int>(seats_.size()); }
  Engine& engine(int worker) noexcept;
  const Engine& engine(int worker) const noexcept;
  SharedParameters& parameters() noexcept { return *parameters_; }
  // The resource for the programs of a worker.
  std::shared_ptr<SharedView> view(int worker);

  void set_arenas(const std::vector<Arenas::Memory>& arenas);
  void clear() noexcept;
  // Adds a program of one worker, for batches of `rows` rows. Throws Error, for example if it reaches beyond the parameters.
  Executor& add(Mode mode, int64_t rows, int worker, const Program& program);
  bool ready(Mode mode, int64_t rows) const noexcept;

  // Trains in the same way as Engine::chunk. A fault ends the run after the batches that other workers compute at that time.
  // `failed` receives how many batches of the run come before the one with the fault, or -1.
  ChunkResult chunk(Feed& feed, const ChunkOptions& options, TrainState* state, Totals* totals,
                    int64_t* failed) noexcept;

  // Any thread may call it at any time.
  Staleness staleness() const noexcept;

 private:
  struct Seat;
  struct Round;
  enum class Claim : uint8_t { kBatch, kWait, kEnd };
  struct Counters {
    std::array<std::atomic<uint64_t>, 17> updates{};
    std::atomic<uint64_t> most{0};
    std::atomic<uint64_t> waits{0};
  };

  void work(Round& round, Seat& seat) noexcept;
  Claim claim(Round& round, Seat& seat) noexcept;
  bool take(Round& round, Seat& seat) noexcept;
  bool may_begin(const Seat& seat) const noexcept;
  void begin(Seat& seat) noexcept;
  void end(Round& round, Seat& seat, const ChunkResult& result) noexcept;

  std::vector<std::unique_ptr<Seat>> seats_;
  std::shared_ptr<SharedParameters> parameters_;
  Team crew_;
  int64_t bound_;
  Counters counters_;
};

}  // namespace gradring
