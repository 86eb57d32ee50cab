#include <algorithm>
#include <cstring>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "program/cuda/executor.h"
#include "program/cuda/plant.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring {

namespace {

[[noreturn]] void refuse(const std::string& text) { throw Error(Code::kInvalidArgument, "[program] " + text); }

size_t aligned(size_t bytes) { return round_up(bytes, SlotLayout::kAlignment); }

// Instructions that only the CPU's plans have.
void require_for_device(const Program& program) {
  if (!program.resources.empty()) {
    refuse(
        "it calls a function of the host or meets other ranks, which no graph of a CUDA device can do: use "
        "device='cpu'");
  }
  for (const Instruction& each : program.instructions) {
    if (each.when == When::kUnbounded) refuse(std::string(each.op->name) + " is on a route that only CPUs have");
  }
}

}  // namespace

SlotLayout::SlotLayout(const Program& program, int64_t rows_of_batch, int64_t most_rates) : rows(rows_of_batch) {
  const auto count = static_cast<size_t>(program.fields);
  fields.resize(count), field_bytes.resize(count);
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind == BufferKind::kOutput) output_bytes = std::max(output_bytes, static_cast<size_t>(buffer.bytes));
    if (buffer.kind != BufferKind::kInput || buffer.offset < 0 || buffer.offset >= program.fields) continue;
    size_t& bytes_of = field_bytes[static_cast<size_t>(buffer.offset)];
    bytes_of = std::max(bytes_of, static_cast<size_t>(buffer.bytes));
  }
  arrange(most_rates);
}

void SlotLayout::arrange(int64_t most_rates) noexcept {
  rates = aligned(sizeof(StepHeader));
  samples = aligned(rates + static_cast<size_t>(most_rates) * sizeof(double));
  size_t end = aligned(samples + static_cast<size_t>(rows) * sizeof(int64_t));
  for (size_t i = 0; i < fields.size(); ++i) {
    fields[i] = end;
    end = aligned(end + field_bytes[i]);
  }
  input_bytes = output = end;
  bytes = aligned(end + output_bytes);
}

SlotPlaces SlotLayout::places(const std::byte* slot) const noexcept {
  return {reinterpret_cast<const StepHeader*>(slot), reinterpret_cast<const double*>(slot + rates),
          reinterpret_cast<const int64_t*>(slot + samples)};
}

void SlotLayout::set_rates(std::byte* slot, const double* given, int64_t count) const noexcept {
  reinterpret_cast<StepHeader*>(slot)->rate_count = count;
  if (count > 0) std::memcpy(slot + rates, given, static_cast<size_t>(count) * sizeof(double));
}

DeviceExecutor::DeviceExecutor(const Program& program, int64_t rows, const SlotLayout& layout, const Arenas& arenas,
                               DeviceLedger* ledger, std::byte* slot, int device, const CudaQueue& queue,
                               const cuda::Lender& lender)
    : rows_(rows), layout_(layout), ledger_(ledger) {
  validate(program);
  require_for_device(program);
  for (const Arena& arena : program.arenas) arena_names_.push_back(arena.name);
  for (const Instruction& each : program.instructions) {
    const std::string of = each.origin.empty() ? "" : " (" + each.origin + ")";
    names_.push_back(trace_name(each.op->name + of));
  }
  if (!program.constants.empty()) {
    constants_ = cuda::DeviceMemory("program", program.constants.size(), lender);
    const int code = cuda::noted("cudaMemcpy", cudaMemcpy(constants_.data(), program.constants.data(),
                                                          program.constants.size(), cudaMemcpyHostToDevice));
    if (code != 0) cuda::throw_failure("program", code);
  }
  make_calls(program, arenas, device, slot);
  for (Code& code : code_) scratch_bytes_ = std::max(scratch_bytes_, cuda_scratch_bytes(code.call, queue));
}

// Counts everything first, and reserves the vectors, because calls point into them.
void DeviceExecutor::make_calls(const Program& program, const Arenas& given, int device, std::byte* slot) {
  Arenas arenas = given;
  if (constants_.data() != nullptr) {
    arenas.set("constants", BufferKind::kConst, static_cast<std::byte*>(constants_.data()),
               static_cast<int64_t>(constants_.bytes()));
  }
  std::vector<std::byte*> starts;
  for (const Arena& arena : program.arenas) starts.push_back(arenas.at(arena).data);
  size_t tensors = 0, attributes = 0, extents = 0;
  for (const Instruction& instruction : program.instructions) {
    tensors += instruction.op->operands.size();
    attributes += instruction.attributes.size();
    for (const Argument& argument : instruction.arguments) extents += 2 * argument.shape.size();
  }
  code_.reserve(program.instructions.size());
  tensors_.resize(tensors), attributes_.reserve(attributes), extents_.reserve(extents);
  size_t at = 0;
  for (const Instruction& instruction : program.instructions) {
    const OpSchema& op = *instruction.op;
    const AttributeValue* const values = attributes_.data() + attributes_.size();
    attributes_.insert(attributes_.end(), instruction.attributes.begin(), instruction.attributes.end());
    for (const Argument& argument : instruction.arguments) {
      Tensor& tensor = tensors_[at + static_cast<size_t>(argument.operand)];
      if (const StepField field = op.operands[static_cast<size_t>(argument.operand)].step; field != StepField::kNone) {
        tensor = {address_of(ledger_->record, field), nullptr, nullptr, 0,
                  kStepFields[static_cast<size_t>(field)].dtype};
        continue;
      }
      tensor = tensor_of(argument, nullptr);
      tensor.shape = extents_.data() + extents_.size();
      extents_.insert(extents_.end(), argument.shape.begin(), argument.shape.end());
      tensor.strides = extents_.data() + extents_.size();
      extents_.insert(extents_.end(), argument.strides.begin(), argument.strides.end());
      tensor.data = bound(program, argument, starts, at + static_cast<size_t>(argument.operand));
    }
    OpCall call;
    call.op = &op, call.name = op.name;
    call.tensors = tensors_.data() + at, call.attributes = values;
    const bool sees_fault = !(planted(Plant::kUpdateIgnoresFault) && op.phases == phase::kUpdate);
    call.step = sees_fault ? &ledger_->record : nullptr;
    code_.push_back({nullptr, call, static_cast<uint8_t>(instruction.when)});
    at += op.operands.size();
  }
  bind(slot);
  for (Code& code : code_) code.run = prepare_cuda_call(code.call, device);
}

// Returns a tensor's address, if it is known now. If not, it notes the tensor, so that each step can set the address.
void* DeviceExecutor::bound(const Program& program, const Argument& argument, const std::vector<std::byte*>& starts,
                            size_t tensor) {
  const Buffer& buffer = program.buffers[static_cast<size_t>(argument.buffer)];
  switch (buffer.kind) {
    case BufferKind::kInput: inputs_.push_back({tensor, buffer.offset, argument.offset}); return nullptr;
    case BufferKind::kOutput: outputs_.push_back({tensor, 0, argument.offset}); return nullptr;
    case BufferKind::kTemp: temps_.push_back({tensor, buffer.arena, buffer.offset + argument.offset}); break;
    default: break;
  }
  return starts[static_cast<size_t>(buffer.arena)] + buffer.offset + argument.offset;
}

void DeviceExecutor::bind(std::byte* slot) noexcept {
  for (const Binding& input : inputs_) {
    tensors_[input.tensor].data = slot + layout_.fields[static_cast<size_t>(input.number)] + input.offset;
  }
  for (const Binding& output : outputs_) tensors_[output.tensor].data = slot + layout_.output + output.offset;
}

void DeviceExecutor::place_temps(const std::string& name, std::byte* memory) {
  for (const Binding& temp : temps_) {
    if (arena_names_[static_cast<size_t>(temp.number)] == name) tensors_[temp.tensor].data = memory + temp.offset;
  }
  forget_graphs();
}

void DeviceExecutor::arrange(int64_t most_rates) noexcept {
  layout_.arrange(most_rates);
  forget_graphs();
}

int DeviceExecutor::queue_instructions(uint8_t moment, const CudaQueue& queue, const char** failed,
                                       StepMarks* marks) noexcept {
  size_t marked = 0;
  int result = marks == nullptr ? 0 : cuda::record(marks->clocks[marked++], queue.stream);
  for (const Code& code : code_) {
    if ((code.when & moment) == 0) continue;
    *failed = code.call.name;
    if (result == 0) result = code.run(code.call, queue);
    if (result == 0 && marks != nullptr) result = cuda::record(marks->clocks[marked++], queue.stream);
    if (result != 0) return result;
  }
  return 0;
}

void DeviceExecutor::queue(std::byte* slot, uint8_t moment, StepKind kind, const CudaQueue& queue) {
  queue_marked(slot, moment, kind, queue, nullptr);
}

void DeviceExecutor::queue_marked(std::byte* slot, uint8_t moment, StepKind kind, const CudaQueue& queue,
                                  StepMarks* marks) {
  if (marks != nullptr) {
    while (marks->clocks.size() <= code_.size()) marks->clocks.push_back(cuda::make_clock("trace"));
    marks->moment = moment;
  }
  bind(slot);
  const SlotPlaces places = layout_.places(slot);
  const char* failed = "step";
  int code = queue_begin(ledger_, places, rows_, moment, kind, queue.stream);
  if (code == 0) code = queue_instructions(moment, queue, &failed, marks);
  if (code == 0) failed = "step", code = queue_end(ledger_, places, rows_, kind, queue.stream);
  if (code != 0) cuda::throw_failure(failed, code);
}

int DeviceExecutor::show(const StepMarks& marks, const cuda::Event& base, int64_t base_ns, TraceRow* row) const {
  size_t marked = 0;
  int64_t before = 0;
  const auto time_of_next = [&](int64_t* ns) {
    double seconds = 0;
    const int code = cuda::elapsed(base, marks.clocks[marked++], &seconds);
    *ns = base_ns + static_cast<int64_t>(seconds * 1e9);
    return code;
  };
  if (const int code = time_of_next(&before); code != 0) return code;
  for (size_t i = 0; i < code_.size(); ++i) {
    if ((code_[i].when & marks.moment) == 0) continue;
    int64_t now = 0;
    if (const int code = time_of_next(&now); code != 0) return code;
    row->record(names_[i], before, now);
    before = now;
  }
  return 0;
}

void DeviceExecutor::launch(std::byte* slot, uint8_t moment, StepKind kind, const CudaQueue& queue) {
  const Key key{slot, moment, kind};
  auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    bind(slot);
    const char* failed = "step";
    int code = 0;
    if (!rehearsed_[moment]) {
      code = planted(Plant::kRehearsalActs) ? 0 : queue_rehearsal_begin(ledger_, queue.stream);
      if (code == 0) {
        code = queue_instructions(moment, queue, &failed);
        // The ledger must not keep the fault of the rehearsal, even if an instruction could not be queued.
        const int ended = queue_rehearsal_end(ledger_, queue.stream);
        if (code == 0) failed = "step", code = ended;
      }
      if (code != 0) cuda::throw_failure(failed, code);
      rehearsed_[moment] = true;
    }
    const SlotPlaces places = layout_.places(slot);
    cuda::Graph graph;
    code = cuda::capture(
        queue.stream,
        [&]() -> int {
          int queued = queue_begin(ledger_, places, rows_, moment, kind, queue.stream);
          if (queued == 0) queued = queue_instructions(moment, queue, &failed);
          if (queued == 0) queued = queue_end(ledger_, places, rows_, kind, queue.stream);
          return queued;
        },
        &graph);
    if (code != 0) cuda::throw_failure(failed, code);
    found = graphs_.emplace(key, std::move(graph)).first;
  }
  if (const int code = cuda::launch(found->second, queue.stream); code != 0) cuda::throw_failure("step", code);
}

}  // namespace gradring
