#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/patience.h"
#include "program/cuda/updates.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr const char* kWho = "step";

void check(int code) {
  if (code != 0) cuda::throw_failure(kWho, code);
}

}  // namespace

DeviceUpdates::DeviceUpdates(std::vector<UpdateGroup> groups, const UpdateOptions& options, void* stream)
    : groups_(std::move(groups)), options_(options) {
  std::vector<CudaPart> parts;
  for (UpdateGroup& group : groups_) {
    const CudaKernel* const kernel = cuda_kernel(*group.call.op);
    const CudaSpansRun run = kernel && kernel->spans.choose ? kernel->spans.choose(group.call) : nullptr;
    if (!run) {
      throw Error(Code::kUnavailable, "[" + std::string(group.call.name) + "] has no CUDA kernel for many arrays");
    }
    group.call.step = nullptr;
    Range range{static_cast<int64_t>(parts.size()), 0, group.call[0].dtype, run,
                static_cast<int64_t>(group.spans.size())};
    for (const CudaSpan& span : group.spans) {
      for (int64_t first = 0; first < span.n; first += kPartElements) {
        parts.push_back({static_cast<int64_t>(spans_.size()), first});
      }
      spans_.push_back(span);
    }
    range.count = static_cast<int64_t>(parts.size()) - range.first;
    ranges_.push_back(range);
  }
  part_count_ = static_cast<int64_t>(parts.size());
  const cuda::OnDevice on(kWho, options_.device);
  const size_t rates = static_cast<size_t>(options_.most_rates) * sizeof(double);
  spans_at_ = round_up(sizeof(UpdateHeader) + rates, size_t{16});
  table_bytes_ = round_up(spans_at_ + spans_.size() * sizeof(CudaSpan), size_t{256});
  const size_t part_bytes = std::max<size_t>(parts.size(), 1) * sizeof(CudaPart);
  report_ = cuda::make_pinned(kWho, sizeof(UpdateLedger));
  host_slots_ = cuda::make_pinned(kWho, table_bytes_ * kSlots);
  host_parts_ = cuda::make_pinned(kWho, part_bytes);
  reported_ = cuda::make_event(kWho), done_ = cuda::make_event(kWho);
  for (size_t i = 0; i < kSlots; ++i) {
    slots_[i].host = static_cast<std::byte*>(host_slots_.get()) + i * table_bytes_;
    slots_[i].copied = cuda::make_event(kWho);
  }
  parts_ = cuda::DeviceMemory(kWho, part_bytes, options_.lender);
  sums_ = cuda::DeviceMemory(kWho, std::max<size_t>(parts.size(), 1) * sizeof(PartSum), options_.lender);
  table_ = cuda::DeviceMemory(kWho, table_bytes_, options_.lender);
  ledger_memory_ = cuda::DeviceMemory(kWho, sizeof(UpdateLedger), options_.lender);
  new (report_.get()) UpdateLedger;
  if (!parts.empty()) std::memcpy(host_parts_.get(), parts.data(), parts.size() * sizeof(CudaPart));
  in_turn(stream, [&] {
    check(cuda::copy(cuda::Way::kToDevice, ledger_memory_.data(), report_.get(), sizeof(UpdateLedger), stream));
    check(cuda::copy(cuda::Way::kToDevice, parts_.data(), host_parts_.get(), part_bytes, stream));
  });
  cuda::wait_for(kWho, done_);
}

template <class Queue>
void DeviceUpdates::in_turn(void* stream, Queue&& queue) {
  cuda::require_no_capture(kWho, stream);
  wait_after_failure();
  // One handle does not mean one stream: each thread has its own per-thread stream, and a new stream may have the handle of a
  // destroyed one. So every turn waits; on the stream that had the last turn, this costs the device nothing.
  check(cuda::wait(stream, done_));
  try {
    queue();
    check(cuda::record(done_, stream));
  } catch (...) {
    const int code = cuda::record(done_, stream);
    if (code != 0) (void)cuda::describe_failure(code);  // the runtime forgets it: it is no failure of a later call
    failed_ = code == 0 ? Failed::kMarked : Failed::kUnmarked;
    throw;
  }
}

// A turn that has failed may have queued some of its work, and no event may mark the end of its copies. So the host waits for
// them before it writes into a slot again.
void DeviceUpdates::wait_after_failure() {
  if (failed_ == Failed::kMarked) cuda::wait_for(kWho, done_);
  if (failed_ == Failed::kUnmarked) check(cuda::synchronize_device());
  failed_ = Failed::kNo;
}

CudaSpans DeviceUpdates::spans_of(const Range& range) const noexcept {
  CudaSpans spans;
  spans.spans = reinterpret_cast<const CudaSpan*>(static_cast<const std::byte*>(table_.data()) + spans_at_);
  spans.parts = static_cast<const CudaPart*>(parts_.data()) + range.first;
  spans.part_count = range.count;
  spans.step = &ledger()->record;
  return spans;
}

// Brings a header, rates and spans to the device.
void DeviceUpdates::queue_table(const UpdateHeader& header, const std::vector<double>& rates,
                                const std::vector<CudaSpan>& spans, void* stream) {
  if (rates.size() > static_cast<size_t>(options_.most_rates)) {
    throw Error(Code::kInternal, "[step] there are more learning rates than the optimizer has");
  }
  Slot& slot = slots_[next_++ % kSlots];
  cuda::wait_for(kWho, slot.copied);
  auto* const to = reinterpret_cast<UpdateHeader*>(slot.host);
  *to = header;
  to->rate_count = static_cast<int64_t>(rates.size());
  if (!rates.empty()) std::memcpy(slot.host + sizeof(UpdateHeader), rates.data(), rates.size() * sizeof(double));
  if (!spans.empty()) std::memcpy(slot.host + spans_at_, spans.data(), spans.size() * sizeof(CudaSpan));
  check(cuda::copy(cuda::Way::kToDevice, table_.data(), slot.host, table_bytes_, stream));
  check(cuda::record(slot.copied, stream));
}

void DeviceUpdates::loss(const void* loss, Dtype dtype, int64_t entry, void* stream) {
  const cuda::OnDevice on(kWho, options_.device);
  in_turn(stream, [&] { check(queue_loss(ledger(), loss, dtype, entry, options_.check, stream)); });
}

// Those of one dtype that follow each other, together.
std::vector<DeviceUpdates::Range> DeviceUpdates::ranges_by_dtype() const {
  std::vector<Range> result;
  for (const Range& range : ranges_) {
    if (!result.empty() && result.back().dtype == range.dtype) {
      result.back().count += range.count;
    } else {
      result.push_back(range);
    }
  }
  return result;
}

void DeviceUpdates::add(const std::vector<void*>& sums, const std::vector<const void*>& gradients, double samples,
                        bool first, void* stream) {
  if (sums.size() != spans_.size() || gradients.size() != spans_.size()) {
    throw Error(Code::kInternal, "[step] there are not as many gradients as parameters");
  }
  const cuda::OnDevice on(kWho, options_.device);
  in_turn(stream, [&] {
    std::vector<CudaSpan> spans = spans_;
    for (size_t i = 0; i < spans.size(); ++i) spans[i].param = sums[i], spans[i].grad = gradients[i];
    queue_table({}, {}, spans, stream);
    for (const Range& range : ranges_by_dtype()) {
      check(queue_sums(spans_of(range), range.dtype, samples, first, options_.processors, stream));
    }
  });
}

void DeviceUpdates::update(const std::vector<const void*>& gradients, const std::vector<double>& rates,
                           const UpdateHeader& header, void* stream) {
  if (gradients.size() != spans_.size() || rates.empty()) {
    throw Error(Code::kInternal, "[step] there are not as many gradients as parameters, or no learning rates");
  }
  updated_ = 0;
  const cuda::OnDevice on(kWho, options_.device);
  in_turn(stream, [&] {
    for (size_t i = 0; i < spans_.size(); ++i) spans_[i].grad = gradients[i];
    queue_table(header, rates, spans_, stream);
    Decision decision;
    decision.header = this->header();
    decision.parts = static_cast<const CudaPart*>(parts_.data()), decision.part_count = part_count_;
    decision.check = options_.check, decision.limit = options_.limit;
    if (options_.check || options_.limit >= 0) {
      auto* const sums = static_cast<PartSum*>(sums_.data());
      decision.sums = sums;
      for (const Range& range : ranges_by_dtype()) {
        check(queue_squares(spans_of(range), range.dtype, sums + range.first, options_.processors, stream));
      }
    }
    check(queue_decision(ledger(), decision, stream));
    const CudaQueue queue{stream, options_.processors, nullptr, nullptr};
    for (size_t i = 0; i < ranges_.size(); ++i) {
      CudaSpans spans = spans_of(ranges_[i]);
      spans.rate = groups_[i].rate;
      if (const int code = ranges_[i].run(groups_[i].call, queue, spans); code != 0) {
        cuda::throw_failure(groups_[i].call.name, code);
      }
      updated_ += ranges_[i].spans;
    }
  });
}

void DeviceUpdates::queue_report(void* stream) {
  const cuda::OnDevice on(kWho, options_.device);
  in_turn(stream, [&] {
    check(cuda::copy(cuda::Way::kToHost, report_.get(), ledger_memory_.data(), sizeof(UpdateLedger), stream));
    check(cuda::record(reported_, stream));
  });
}

bool DeviceUpdates::take_report(bool wait, UpdateLedger* report) {
  const cuda::OnDevice on(kWho, options_.device);
  if (wait) {
    cuda::wait_for(kWho, reported_);
  } else {
    int code = 0;
    const bool done = cuda::is_done(reported_, &code);
    check(code);
    if (!done) return false;
  }
  std::memcpy(report, report_.get(), sizeof *report);
  return true;
}

void DeviceUpdates::clear_fault(void* stream) {
  const cuda::OnDevice on(kWho, options_.device);
  in_turn(stream, [&] { check(queue_no_fault(ledger(), stream)); });
}

}  // namespace gradring
