// A loader's slots, registered with a CUDA device: each lies within one registration, a copy from it is pinned and sees what was
// written last, and every refusal leaves slots as good as before. Registrations end before their memory.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/pinning.h"
#include "cuda/software/tests/apart.h"
#include "cuda/software/tests/device_array.h"
#include "loader/pipeline.h"
#include "loader/slot_plant.h"
#include "loader/slots.h"
#include "loader/source.h"
#include "runtime/arena.h"
#include "runtime/pinning.h"
#include "runtime/status.h"

using namespace gradring;
using gradring::testing::DeviceArray;
using gradring::testing::in_every_schedule;

namespace {

bool is_pinned(const void* at) {
  cudaPointerAttributes found{};
  REQUIRE(cudaPointerGetAttributes(&found, at) == cudaSuccess);
  return found.type == cudaMemoryTypeHost;
}

std::vector<uint32_t> grow(SlotPool& pool, uint32_t count) {
  std::vector<uint32_t> slots(count);
  for (uint32_t& each : slots) REQUIRE(pool.grow(&each));
  return slots;
}

int registrations() {
  const auto calls = software::calls();
  const auto found = calls.find("cudaHostRegister");
  return found == calls.end() ? 0 : found->second;
}

// A source whose sample s is {s, s + 1, ...}.
class Numbers final : public Source {
 public:
  int64_t length() const noexcept override { return 200; }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }
  size_t scratch_bytes() const noexcept override { return 0; }
  Status read(const ReadRequest& request, int64_t*) const noexcept override {
    auto* x = reinterpret_cast<int64_t*>(request.fields[0]);
    for (int64_t row = 0; row < request.rows; ++row)
      for (int64_t i = 0; i < 30; ++i) x[row * 30 + i] = request.samples[row] + i;
    return {};
  }

 private:
  std::vector<FieldSpec> fields_{{"x", Dtype::kInt64, {30}}};
};

}  // namespace

TEST_CASE("each slot lies within one registration, for slots of any size") {
  cuda::HostPinner pinner;
  for (const size_t bytes : {size_t{1}, size_t{100}, size_t{192}, size_t{4096}, size_t{8} << 10, size_t{50000},
                             size_t{65536}, size_t{70000}, size_t{3} << 20}) {
    for (const uint32_t most : {uint32_t{7}, uint32_t{64}, uint32_t{130}}) {
      CAPTURE(bytes);
      CAPTURE(most);
      software::restart({});
      {
        SlotPool pool(bytes, 3, most, true);
        pool.pin(pinner);
        const uint32_t count = bytes > 100000 ? 4 : most;
        for (const uint32_t slot : grow(pool, count)) {
          REQUIRE(pool.pin_refusal().ok());
          CHECK(pool.pinned(slot));
          CHECK(is_pinned(pool.data(slot)));
          CHECK(is_pinned(pool.data(slot) + pool.stride() - 1));
        }
        // The device copies a whole slot at once, and refuses one that lies in two registrations.
        const DeviceArray<unsigned char> device(std::vector<unsigned char>(pool.stride()), 0);
        for (uint32_t slot = 0; slot < count; ++slot) {
          CHECK(cudaMemcpyAsync(device.data(), pool.data(slot), pool.stride(), cudaMemcpyHostToDevice, nullptr) ==
                cudaSuccess);
        }
        REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
        const size_t block = 4096 / std::gcd(pool.stride(), size_t{4096});
        CHECK(registrations() == static_cast<int>((count + block - 1) / block));
      }
      CHECK(software::leaks() == "");
    }
  }
}

TEST_CASE("a copy reads a pinned slot when it runs, also what another process has written, and after a trim") {
  cuda::HostPinner pinner;
  in_every_schedule([&](const software::Options&) {
    SlotPool pool(1000, 2, 4, true);
    pool.pin(pinner);
    const uint32_t slot = grow(pool, 1)[0];
    const DeviceArray<unsigned char> device(std::vector<unsigned char>(1000), 0);
    pool.give(slot);
    pool.trim();  // the pages must stay those that the device knows
    uint32_t taken = 0;
    REQUIRE(pool.take(&taken));
    const software::Outcome outcome = software::run_forked([&]() -> int {
      SlotMap theirs(pool.stride(), pool.map().first(), pool.map().most(), pool.fd());
      std::byte* const at = theirs.reach(taken);
      if (!at) return 1;
      for (int i = 0; i < 1000; ++i) at[i] = static_cast<std::byte>(i % 251);
      return 0;
    });
    REQUIRE(outcome.status == 0);
    REQUIRE(cudaMemcpyAsync(device.data(), pool.data(taken), 1000, cudaMemcpyHostToDevice, nullptr) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    const std::vector<unsigned char> got = device.read();
    bool right = true;
    for (int i = 0; i < 1000; ++i) right &= got[static_cast<size_t>(i)] == i % 251;
    CHECK(right);
  });
}

namespace {

// How much memory the slots have.
int64_t bytes_of(const SlotPool& pool) {
  struct stat found {};
  return fstat(pool.fd(), &found) == 0 ? found.st_blocks * 512 : -1;
}

// Slots are filled, given back, trimmed, and copied from by a device, which knows the pages that they had when it registered them.
int registered_slots(SlotPlant plant, size_t bytes) {
  the_plant<SlotPlant> = plant;
  cuda::HostPinner pinner;
  SlotPool pool(bytes, 3, 40, true);
  pool.pin(pinner);
  std::vector<uint32_t> slots(20);
  for (uint32_t& each : slots) {
    if (!pool.grow(&each)) return 2;
    std::memset(pool.data(each), static_cast<int>(each) + 1, bytes);
  }
  if (!pool.pin_refusal().ok()) return 3;
  for (const uint32_t slot : slots) pool.give(slot);
  const int64_t before = bytes_of(pool);
  if (before < static_cast<int64_t>(20 * bytes)) return 7;
  pool.trim();
  if (bytes_of(pool) != before) return 4;
  const DeviceArray<unsigned char> device(std::vector<unsigned char>(bytes), 0);
  for (const uint32_t slot : slots) {
    if (!pool.pinned(slot)) return 5;
    OK(cudaMemcpyAsync(device.data(), pool.data(slot), bytes, cudaMemcpyHostToDevice, nullptr));
    OK(cudaDeviceSynchronize());
    if (device.read().back() != slot + 1) return 6;
  }
  return 0;
}

}  // namespace

TEST_CASE("registered slots keep their pages and their own registration, and a planted bug is found") {
  for (const size_t bytes :
       {size_t{1000}, size_t{70000}}) {  // the small ones lie on pages with others, and are never trimmed
    for (const SlotPlant plant : {SlotPlant::kNone, SlotPlant::kTrimmed, SlotPlant::kOverlaps}) {
      const bool harmless = plant == SlotPlant::kNone || (plant == SlotPlant::kTrimmed && bytes < 4096);
      const software::Outcome outcome = software::run_apart({}, [&] { return registered_slots(plant, bytes); });
      INFO("bug ", static_cast<int>(plant), ", ", bytes, " bytes: ", outcome.status, " ", outcome.said);
      CHECK((outcome.status == 0) == harmless);
    }
  }
}

TEST_CASE("a pipeline with a pinner delivers batches that a device copies from where they lie") {
  cuda::HostPinner pinner;
  const auto source = std::make_shared<Numbers>();
  in_every_schedule([&](const software::Options&) {
    PipelineOptions options;
    options.batch_size = 16, options.workers = 2, options.active = 2, options.cells = 3, options.pinner = &pinner;
    Pipeline pipeline(source, source->fields(), options);
    const DeviceArray<int64_t> device(std::vector<int64_t>(16 * 30), 0);
    int64_t rows = 0;
    pipeline.start({.samples = 200, .batch_size = 16, .seed = 3, .shuffle = true}, false);
    for (;;) {
      Delivery got;
      const Delivered result = pipeline.next(&got, deadline_in(std::chrono::seconds(60)));
      if (result == Delivered::kEnd) break;
      REQUIRE(result == Delivered::kBatch);
      REQUIRE(pipeline.slots()->pinned(got.slot));
      const std::byte* const slot = pipeline.slots()->data(got.slot);
      const std::byte* const x = slot + pipeline.layout().offsets[0];
      std::vector<int64_t> samples(static_cast<size_t>(got.rows));
      std::memcpy(samples.data(), slot, samples.size() * sizeof(int64_t));
      const auto bytes = static_cast<size_t>(got.rows) * 30 * sizeof(int64_t);
      REQUIRE(cudaMemcpyAsync(device.data(), x, bytes, cudaMemcpyHostToDevice, nullptr) == cudaSuccess);
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);  // only then may the slot be filled again
      pipeline.slots()->give(got.slot);
      const std::vector<int64_t> values = device.read();
      for (size_t row = 0; row < samples.size(); ++row) CHECK(values[row * 30 + 29] == samples[row] + 29);
      rows += got.rows;
    }
    CHECK(rows == 200);
  });
}

TEST_CASE("if the device refuses, the slots are as good as before, and it is asked no more") {
  cuda::HostPinner pinner;
  for (const int number : {1, 2, 3}) {
    software::Options options;
    options.faults = {{"cudaHostRegister", number, cudaErrorMemoryAllocation}};
    software::restart(options);
    {
      SlotPool pool(size_t{70000}, 2, 8, true);
      pool.pin(pinner);
      const std::vector<uint32_t> slots = grow(pool, 6);
      CHECK(pool.pin_refusal().code() == Code::kOutOfMemory);
      CHECK(std::string(pool.pin_refusal().message()).find("cudaHostRegister of 73728 bytes: out of memory") !=
            std::string::npos);
      CHECK(registrations() == number);
      const DeviceArray<unsigned char> device(std::vector<unsigned char>(70000), 0);
      for (const uint32_t slot : slots) {
        CHECK(pool.pinned(slot) == (static_cast<int>(slot) < number - 1));
        std::memset(pool.data(slot), static_cast<int>(slot), 70000);
        REQUIRE(cudaMemcpyAsync(device.data(), pool.data(slot), 70000, cudaMemcpyHostToDevice, nullptr) == cudaSuccess);
        REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
        CHECK(device.read()[69999] == slot);
      }
    }
    CHECK(software::leaks() == "");
  }
}

TEST_CASE("private slots, and slots that are there already, are not pinned") {
  cuda::HostPinner pinner;
  SlotPool private_pool(64, 2, 2, false), late(64, 2, 2, true);
  CHECK_THROWS_AS(private_pool.pin(pinner), Error);
  (void)grow(late, 1);
  CHECK_THROWS_AS(late.pin(pinner), Error);
  CHECK(!late.pinned(0));
}

TEST_CASE("memory of the host is registered by whole pages, once, and the refusal names the call") {
  software::restart({});
  cuda::HostPinner pinner;
  {
    const AlignedArena arena(3 * 4096);
    PinnedRanges ranges(pinner), others(pinner);
    REQUIRE(ranges.add(arena.data(), 2 * 4096).ok());
    const Status twice = others.add(arena.data() + 4096, 4096);  // another owner: the device sees it
    CHECK(twice.code() == Code::kUnavailable);
    CHECK(std::string(twice.message()).find("cudaErrorHostMemoryAlreadyRegistered") != std::string::npos);
    CHECK(cudaGetLastError() == cudaSuccess);
    CHECK(others.add(arena.data() + 2 * 4096, 4096).ok());
  }
  CHECK(software::leaks() == "");
}

TEST_CASE("a failure to end a registration is no error of the owner") {
  software::Options options;
  options.faults = {{"cudaHostUnregister", 1, cudaErrorNotPermitted}};
  options.report_leaks = false;
  software::restart(options);
  cuda::HostPinner pinner;
  {
    const AlignedArena arena(4096);
    PinnedRanges ranges(pinner);
    REQUIRE(ranges.add(arena.data(), 4096).ok());
  }
  CHECK(software::calls().at("cudaHostUnregister") == 1);
  CHECK(cudaGetLastError() == cudaSuccess);
  software::restart({});
}
#endif
