// Groups and all_reduce for C.
#include "comm/group.h"

#include <vector>

#include "capi/guarded.h"
#include "gradring/gradring.h"

struct gradring_group {
  explicit gradring_group(std::shared_ptr<gradring::Group> held) : group(std::move(held)) {}
  std::shared_ptr<gradring::Group> group;
};

namespace gradring {

namespace {

using capi::guarded;
using capi::require;

static_assert(GRADRING_CLOSED == static_cast<int>(Code::kClosed) &&
              GRADRING_UNAVAILABLE == static_cast<int>(Code::kUnavailable) &&
              GRADRING_PEER_DIED == static_cast<int>(Code::kPeerDied) &&
              GRADRING_PEER_STALLED == static_cast<int>(Code::kPeerStalled) &&
              GRADRING_MISMATCH == static_cast<int>(Code::kMismatch));
static_assert(GRADRING_BFLOAT16 == static_cast<int>(Element::kBfloat16) &&
              GRADRING_INT32 == static_cast<int>(Element::kInt32) &&
              GRADRING_INT64 == static_cast<int>(Element::kInt64) &&
              GRADRING_PROD == static_cast<int>(Reduction::kProd));

std::chrono::nanoseconds timeout_of(double seconds) {
  require(seconds > 0, Status(Code::kInvalidArgument, "[group] timeout is %g s: must be positive", seconds));
  return std::chrono::nanoseconds(static_cast<int64_t>((seconds < 1e9 ? seconds : 1e9) * 1e9));
}

void require_group(const gradring_group* group) {
  require(group, Status(Code::kInvalidArgument, "[group] group is NULL"));
}

void run(gradring_group* group, const Call& call) {
  const Code code = group->group->run(call);
  if (code != Code::kOk) throw Error(code, group->group->message(code, call));
}

}  // namespace

}  // namespace gradring

using gradring::Code;
using gradring::Status;
using gradring::capi::guarded;
using gradring::capi::require;

int gradring_group_create_threads(int size, double timeout, gradring_group** groups) {
  return guarded([&] {
    require(groups, Status(Code::kInvalidArgument, "[group] groups is NULL"));
    auto made = gradring::Group::of_threads(size, gradring::timeout_of(timeout));
    std::vector<std::unique_ptr<gradring_group>> held;
    for (auto& group : made) held.push_back(std::make_unique<gradring_group>(std::move(group)));
    for (size_t i = 0; i < held.size(); ++i) groups[i] = held[i].release();
  });
}

int gradring_group_segment(int size, int* fd) {
  return guarded([&] {
    require(fd, Status(Code::kInvalidArgument, "[group] fd is NULL"));
    *fd = gradring::ControlBlock::create(size, 0);
  });
}

int gradring_group_data_segment(int* fd) {
  return guarded([&] {
    require(fd, Status(Code::kInvalidArgument, "[group] fd is NULL"));
    *fd = gradring::OwnSegment::create();
  });
}

int gradring_group_join(int segment_fd, int rank, int size, uint64_t generation, const int* pidfds, const int* data_fds,
                        double timeout, gradring_group** group) {
  return guarded([&] {
    require(pidfds && data_fds && group && size >= 0 && size <= gradring::kMostRanks,
            Status(Code::kInvalidArgument, "[group] size is %d: must be 1 to %d, and no pointer NULL", size,
                   gradring::kMostRanks));
    *group = new gradring_group(
        gradring::Group::join(segment_fd, rank, size, generation, std::vector<int>(pidfds, pidfds + size),
                              std::vector<int>(data_fds, data_fds + size), gradring::timeout_of(timeout)));
  });
}

void gradring_group_destroy(gradring_group* group) { delete group; }

int gradring_group_rank(const gradring_group* group) { return group ? group->group->rank() : -1; }

int gradring_group_size(const gradring_group* group) { return group ? group->group->size() : 0; }

int gradring_group_allocate(gradring_group* group, uint64_t bytes, void** memory) {
  return guarded([&] {
    gradring::require_group(group);
    require(memory, Status(Code::kInvalidArgument, "[group] memory is NULL"));
    *memory = group->group->allocate(bytes);
  });
}

void gradring_group_free(gradring_group* group, void* memory) {
  if (group && memory) group->group->segments()->own.free(memory);
}

int gradring_all_reduce(gradring_group* group, const void* in, void* out, int64_t count, int dtype, int op) {
  return guarded([&] {
    using namespace gradring;
    require_group(group);
    require(count >= 0 && ((in && out) || count == 0),
            Status(Code::kInvalidArgument, "[all_reduce] count is %lld: must not be negative, and no array NULL",
                   static_cast<long long>(count)));
    require(dtype >= 0 && dtype < kElements && op >= 0 && op < kReductions &&
                can_reduce(static_cast<Element>(dtype), static_cast<Reduction>(op)),
            Status(Code::kInvalidArgument, "[all_reduce] dtype %d cannot be reduced by op %d", dtype, op));
    Call call;
    const auto element = static_cast<Element>(dtype);
    call.agreement = {Collective::kAllReduce,      element, static_cast<Reduction>(op), 0, false,
                      static_cast<uint64_t>(count)};
    call.in = CommOperand(const_cast<void*>(in), count, size_of(element));
    call.out = CommOperand(out, count, size_of(element));
    const auto a = call.in.extent(), b = call.out.extent();
    require(in == out || a.begin >= b.end || b.begin >= a.end,
            Status(Code::kInvalidArgument,
                   "[all_reduce] out overlaps in by a part: must be in itself, or memory of its own"));
    run(group, call);
  });
}

int gradring_barrier(gradring_group* group) {
  return guarded([&] {
    gradring::require_group(group);
    gradring::Call call;
    call.agreement.kind = gradring::Collective::kBarrier;
    gradring::run(group, call);
  });
}
