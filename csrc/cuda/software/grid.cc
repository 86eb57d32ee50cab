#include "cuda/software/grid.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <utility>

#include "cuda/software/block.h"
#include "cuda/software/report.h"
#include "cuda/software/sanitizers.h"

namespace gradring::software {

const Coordinates* now = nullptr;
int64_t grid_moves = 0;
int64_t identities_taken_over = 0;

struct Grid::State {
  Launch launch;
  GridOptions options;
  std::mt19937_64 random;
  std::vector<uint64_t> order;  // the order in which blocks begin
  size_t next = 0;              // the next block to begin
  size_t most_resident = 1;
  std::vector<std::unique_ptr<Block>> resident;
  std::vector<void*> shared;
  std::vector<int> ready;
  Context scheduler;
  char begin = 0;  // the address at which the kernel announces what its threads are ordered after
  char end = 0;    // the address at which all threads announce that they have finished
  Identities used;

  Block* block = nullptr;
  Thread* thread = nullptr;

  void give_identity(Thread* fresh);
  void begin_block();
  bool pass(Block& block);
  void finish(Block& block);
  [[noreturn]] void report_deadlock(const Block& block) const;
};

namespace {
Grid::State* running = nullptr;
}  // namespace

const char* running_kernel() { return running ? running->launch.name : "host"; }
Block& running_block() { return *running->block; }
Thread& running_thread() { return *running->thread; }

GRADRING_UNSANITIZED void yield() {
  Grid::State* const grid = running;
  switch_context(&grid->thread->context, &grid->scheduler, grid->thread->state == Thread::State::kDone);
}

void* new_shared_memory(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, std::max<size_t>(bytes, 1)) != 0) fail("no memory for a block's shared memory");
  for (size_t i = 0; i < bytes; ++i) static_cast<volatile unsigned char*>(memory)[i] = 0xff;
  running->shared.push_back(memory);
  return memory;
}

namespace {

void enter() {
  finish_first_switch();
  running->launch.body();
  announce_before(&running->end);
  Block& block = *running->block;
  running->thread->state = Thread::State::kDone;
  const auto number = static_cast<size_t>(running->thread - block.threads.data());
  block.warps[number / 32].exited |= 1u << number % 32;
  --block.live;
  yield();
  std::abort();
}

}  // namespace

Block::Block(const Launch& launch, uint64_t number) {
  const dim3 t = launch.threads, g = launch.blocks;
  count = live = static_cast<int>(t.x * t.y * t.z);
  threads.resize(static_cast<size_t>(count));
  warps.resize(static_cast<size_t>((count + 31) / 32));
  for (unsigned k = 0; k < static_cast<unsigned>(count); ++k) {
    Coordinates& at = threads[k].at;
    at.thread = {k % t.x, k / t.x % t.y, k / (t.x * t.y)};
    at.block = {static_cast<unsigned>(number % g.x), static_cast<unsigned>(number / g.x % g.y),
                static_cast<unsigned>(number / (uint64_t{g.x} * g.y))};
    at.threads = t;
    at.blocks = g;
  }
}

void Block::message(const Thread& thread, char* text, size_t size) const {
  const uint3 b = thread.at.block, t = thread.at.thread;
  std::snprintf(text, size, "block (%u,%u,%u) thread (%u,%u,%u)", b.x, b.y, b.z, t.x, t.y, t.z);
}

Identities::~Identities() { clear(); }

void Identities::clear() {
  for (const Taken& each : all_) give_up(each);
  all_.clear();
}

void Identities::give_up(const Taken& taken) {
  destroy_identity(taken.identity);
  return_stack(taken.stack);
}

void Identities::put(const Taken& taken) {
  if (taken.identity != nullptr && all_.size() < kMost) {
    all_.push_back(taken);
  } else {
    give_up(taken);
  }
}

Identities::Taken Identities::take() {
  if (all_.empty()) return {};
  const Taken taken = all_.back();
  all_.pop_back();
  return taken;
}

void Identities::put_all(Identities* others) {
  if (all_.empty()) std::swap(all_, others->all_);
  for (const Taken& each : others->all_) put(each);
  others->all_.clear();
}

// The thread will not be ordered with any other thread of this grid.
void Grid::State::give_identity(Thread* fresh) {
  const Identities::Taken taken = options.spare ? options.spare->take() : Identities::Taken{};
  fresh->stack = taken.identity ? taken.stack : take_stack();
  prepare(&fresh->context, fresh->stack, enter);
  fresh->context.identity = taken.identity ? taken.identity : new_identity();
  if (taken.identity == nullptr) return;
  ++identities_taken_over;
  void* const caller = current_identity();
  take_identity(taken.identity);
  announce_after(&begin);
  take_identity(caller);
}

void Grid::State::begin_block() {
  resident.push_back(std::make_unique<Block>(launch, order[next++]));
  Block& fresh = *resident.back();
  if (launch.dynamic_shared > 0) fresh.dynamic = new_shared_memory(launch.dynamic_shared);
  fresh.shared_bytes = launch.dynamic_shared;
  announce_before(&begin);
  for (Thread& each : fresh.threads) give_identity(&each);
}

void Grid::State::finish(Block& done) {
  for (Thread& each : done.threads) used.put({each.context.identity, each.stack});
  std::erase_if(resident, [&](const auto& each) { return each.get() == &done; });
}

void Grid::State::report_deadlock(const Block& stuck) const {
  std::string text;
  int shown = 0;
  for (const Thread& each : stuck.threads) {
    if (each.state == Thread::State::kDone || ++shown > 4) continue;
    char who[128], where[512];
    stuck.message(each, who, sizeof who);
    std::snprintf(where, sizeof where, "; %s waits in a %s at %s:%u", who,
                  each.state == Thread::State::kAtBarrier ? "barrier" : "warp operation", each.site.file_name(),
                  each.site.line());
    text += where;
  }
  fail("deadlock: %d of %d threads wait%s", stuck.live, stuck.count, text.c_str());
}

// Runs every thread once that can run. Returns false if all of them only spun.
bool Grid::State::pass(Block& current) {
  ready.clear();
  for (int k = 0; k < current.count; ++k) {
    const Thread::State state = current.threads[static_cast<size_t>(k)].state;
    if (state == Thread::State::kReady || state == Thread::State::kSpinning) ready.push_back(k);
  }
  if (ready.empty()) report_deadlock(current);
  if (options.order == BlockOrder::kReverse) std::reverse(ready.begin(), ready.end());
  if (options.order == BlockOrder::kSeeded) std::shuffle(ready.begin(), ready.end(), random);
  bool progress = false;
  for (int k : ready) {
    Thread& each = current.threads[static_cast<size_t>(k)];
    each.state = Thread::State::kReady;
    thread = &each;
    now = &each.at;
    switch_context(&scheduler, &each.context, false);
    progress |= each.state != Thread::State::kSpinning;
  }
  thread = nullptr;
  now = nullptr;
  return progress;
}

Grid::Grid(Launch launch, const GridOptions& options) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.launch = std::move(launch);
  s.options = options;
  s.random.seed(options.seed);
  const dim3 g = s.launch.blocks, t = s.launch.threads;
  for (uint64_t i = 0; i < uint64_t{g.x} * g.y * g.z; ++i) s.order.push_back(i);
  if (options.order == BlockOrder::kReverse) std::reverse(s.order.begin(), s.order.end());
  if (options.order == BlockOrder::kSeeded) std::shuffle(s.order.begin(), s.order.end(), s.random);
  s.most_resident = std::max<size_t>(1, static_cast<size_t>(options.resident_threads) / (t.x * t.y * t.z));
}

Grid::~Grid() = default;

bool Grid::step() {
  State& s = *state_;
  State* const outer = running;
  running = &s;
  s.scheduler.identity = current_identity();
  bool moved = true;
  while (moved && (s.next < s.order.size() || !s.resident.empty())) {
    moved = false;
    // Run one block at a time to its end. If a block only spins, the next begins, until no more fit.
    for (size_t i = 0; i < s.resident.size() || (s.next < s.order.size() && i < s.most_resident); ++i) {
      if (i == s.resident.size()) s.begin_block();
      Block& current = *s.resident[i];
      s.block = &current;
      bool progress = true;
      while (progress && current.live > 0) {
        progress = s.pass(current);
        moved |= progress;
        grid_moves += progress;
      }
      if (current.live == 0) {
        s.finish(current);
        --i;
      }
    }
  }
  s.block = nullptr;
  const bool finished = s.next == s.order.size() && s.resident.empty();
  if (finished) {
    announce_after(&s.end);
    if (s.options.spare) s.options.spare->put_all(&s.used);
    for (void* memory : s.shared) std::free(memory);
    s.shared.clear();
  }
  running = outer;
  return finished;
}

void relax() {
  if (!running) return;
  running_thread().state = Thread::State::kSpinning;
  yield();
}

void* shared_memory(const void* key, size_t bytes, const char* name) {
  const Unseen unseen;
  Block& block = running_block();
  for (const Block::Shared& each : block.shared) {
    if (each.key == key) return each.memory;
  }
  block.shared_bytes += (bytes + 127) / 128 * 128;
  if (block.shared_bytes - running->launch.dynamic_shared > kStaticSharedLimit) {
    fail("shared array %s: the block's static shared memory exceeds %zu bytes", name, kStaticSharedLimit);
  }
  block.shared.push_back({key, new_shared_memory(bytes), bytes});
  return block.shared.back().memory;
}

void* dynamic_shared_memory() {
  if (!running_block().dynamic) fail("dynamic shared memory is used, but the launch asks for none");
  return running_block().dynamic;
}

}  // namespace gradring::software
