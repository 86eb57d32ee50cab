#include "program/cpu/schedule.h"

#include <doctest/doctest.h>

#include <string>

#include "program/testing.h"

namespace gradring {

using testing::Perceptron;
using testing::ProgramMaker;
using testing::View;

namespace {

// Returns '|' for each instruction with a barrier before it. `single` gets '1' for each that lane 0 alone runs.
std::string marks(const Perceptron& shape, std::string* single) {
  std::string bars;
  for (const Dispatch& dispatch : make_schedule(shape.program(), 2).dispatches) {
    bars += dispatch.barrier ? '|' : '.';
    *single += dispatch.single_lane ? '1' : '.';
  }
  return bars;
}

}  // namespace

TEST_CASE("barriers stand where memory says so, and nowhere else") {
  std::string single;
  // Two forward products, the loss, check_step, dx and dw of the second layer, dw of the first layer, the update.
  CHECK(marks({512, 100, 130, 10}, &single) == ".|||..||");
  CHECK(single == "........");
}

TEST_CASE("what lane 0 does alone needs no barrier between") {
  std::string single;
  CHECK(marks({64, 100, 130, 10}, &single) == ".|.|..||");
  CHECK(single == ".11.11..");
}

TEST_CASE("temps that share memory are kept apart by a barrier") {
  constexpr int64_t n = 1 << 20;  // large enough that all lanes share the copy
  ProgramMaker make;
  const View whole = make.view(BufferKind::kTemp, Dtype::kFloat32, {n}, 0);
  const View half = make.view(BufferKind::kTemp, Dtype::kFloat32, {n / 2}, 2 * n);
  const View other = make.view(BufferKind::kTemp, Dtype::kFloat32, {n / 2}, 4 * n);
  const View apart = make.view(BufferKind::kTemp, Dtype::kFloat32, {n}, 8 * n);
  make.emit("copy", {{"x", half}, {"y", other}});
  make.emit("copy", {{"x", apart}, {"y", whole}});
  make.emit("copy", {{"x", half}, {"y", other}});
  const Schedule schedule = make_schedule(make.program, 2);
  CHECK(!schedule.dispatches[0].barrier);
  CHECK(schedule.dispatches[1].barrier);  // writes what the first reads
  CHECK(schedule.dispatches[2].barrier);  // reads what the second writes
  CHECK(schedule.shared_out);
}

TEST_CASE("views of one buffer conflict only where they overlap") {
  constexpr int64_t n = 1 << 18;
  ProgramMaker make;
  const View from = make.view(BufferKind::kTemp, Dtype::kFloat32, {n}, 0);
  const View whole = make.view(BufferKind::kTemp, Dtype::kFloat32, {2 * n}, 4 * n);
  View part = whole;
  part.shape = {n};
  for (const int64_t offset : {int64_t{0}, 4 * n, 4 * n - 4}) {
    make.emit("copy", {{"x", from}, {"y", part}}).arguments[1].offset = offset;
  }
  const Schedule schedule = make_schedule(make.program, 3);
  CHECK(!schedule.dispatches[1].barrier);  // it writes next to what the first writes
  CHECK(schedule.dispatches[2].barrier);   // it shares one element with each of the two
}

TEST_CASE("what writes the step record runs on every lane") {
  const Program program = Perceptron{1, 2, 3, 2}.program();
  const Schedule schedule = make_schedule(program, 4);
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    CHECK(schedule.dispatches[i].single_lane == !program.instructions[i].op->effects);
  }
  CHECK(!schedule.shared_out);
}

TEST_CASE("buffers of two arenas of one kind never conflict") {
  constexpr int64_t n = 1 << 20;
  ProgramMaker make;
  const View from = make.view(BufferKind::kGrad, Dtype::kFloat32, {n}, 0);
  const View to = make.view(BufferKind::kGrad, Dtype::kFloat32, {n}, 4 * n);
  const View third = make.view(BufferKind::kTemp, Dtype::kFloat32, {n}, 0);
  make.emit("copy", {{"x", from}, {"y", to}});
  make.emit("copy", {{"x", to}, {"y", third}});
  CHECK(make_schedule(make.program, 2).dispatches[1].barrier);
  // Now the second copy reads the same offsets in another arena.
  View other = to;
  make.program.arenas.push_back({"grad of rank 1", BufferKind::kGrad, 8 * n});
  make.program.buffers.push_back(make.program.buffers[static_cast<size_t>(to.buffer)]);
  other.buffer = static_cast<int32_t>(make.program.buffers.size() - 1);
  make.program.buffers.back().arena = static_cast<int32_t>(make.program.arenas.size() - 1);
  make.program.instructions.pop_back();
  make.emit("copy", {{"x", other}, {"y", third}});
  validate(make.program);
  CHECK(!make_schedule(make.program, 2).dispatches[1].barrier);
}

}  // namespace gradring
