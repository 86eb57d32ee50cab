#include "program/program.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "program/cpu/executor.h"
#include "program/testing.h"
#include "runtime/status.h"

namespace gradring {

using testing::Memory;
using testing::Perceptron;

namespace {

// Changes a perceptron's program, and returns the error that refuses it; empty if it is accepted.
template <class Change>
std::string error_of(Change change) {
  const Perceptron shape{4, 3, 2, 2};
  Memory<float> memory(shape);
  Team team(1);
  Program program = shape.program();
  change(program);
  try {
    const Executor executor(program, memory.arenas, team);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Argument& argument(Program& p, size_t instruction, const char* name) {
  Instruction& i = p.instructions[instruction];
  const int operand = find_operand(*i.op, name);
  return *std::find_if(i.arguments.begin(), i.arguments.end(), [&](const Argument& a) { return a.operand == operand; });
}

void reshape(Argument& a, std::vector<int64_t> shape) {
  a.shape = std::move(shape);
  a.strides = dense_strides(a.shape, a.dtype);
}

}  // namespace

TEST_CASE("a program that would leave its memory is refused, and the error names op and operand") {
  CHECK(error_of([](Program&) {}).empty());
  CHECK(has(error_of([](Program& p) {
              reshape(argument(p, 0, "x"), {5, 3});
              reshape(argument(p, 0, "y"), {5, 2});
            }),
            "[linear] x ends at byte 60, its buffer at 48 (instruction 0"));
  CHECK(has(error_of([](Program& p) { reshape(argument(p, 0, "x"), {4, -1}); }), "[linear] x has the shape (4, -1)"));
  CHECK(has(error_of([](Program& p) { reshape(argument(p, 0, "x"), {INT64_MAX, INT64_MAX}); }), "[linear] x"));
  CHECK(has(error_of([](Program& p) { reshape(argument(p, 0, "x"), {4, 2}); }), "x is (4, 2)"));
  CHECK(has(error_of([](Program& p) { argument(p, 0, "y").buffer = 99; }), "[linear] y lies in buffer 99"));
  CHECK(has(error_of([](Program& p) { argument(p, 0, "y").buffer = -1; }), "[linear] y is absent"));
  CHECK(has(error_of([](Program& p) { argument(p, 0, "y").offset = -4; }), "[linear] y begins at byte"));
  CHECK(has(error_of([](Program& p) { argument(p, 0, "y").offset = 2; }), "must be a multiple of 4"));
  CHECK(has(error_of([](Program& p) { argument(p, 0, "y").offset = INT64_MAX - 3; }), "[linear] y"));
  CHECK(has(error_of([](Program& p) {
              argument(p, 5, "dw").buffer = argument(p, 0, "x").buffer;
              p.buffers[static_cast<size_t>(argument(p, 0, "x").buffer)].bytes = 1 << 20;
            }),
            "[linear_dw] dw is an input of the program"));
  CHECK(has(error_of([](Program& p) {
              argument(p, 2, "target").dtype = Dtype::kFloat32;
              reshape(argument(p, 2, "target"), {4});
            }),
            "target is of dtype float32"));
  CHECK(has(error_of([](Program& p) { argument(p, 0, "w").dtype = Dtype::kFloat64; }), "[linear]"));
  CHECK(has(error_of([](Program& p) { argument(p, 0, "w").dtype = kNoDtype; }), "[linear] w has no dtype"));
  CHECK(has(error_of([](Program& p) { argument(p, 0, "w").strides[1] = 8; }), "strides that its op does not take"));
  CHECK(has(error_of([](Program& p) { argument(p, 2, "x").strides = {0, 4}; }), "strides"));
  CHECK(has(error_of([](Program& p) {  // the kernel uses the leading dimension of y for pre too
              Argument pre = argument(p, 0, "y");
              pre.operand = find_operand(*p.instructions[0].op, "pre");
              pre.strides = {12, 4};
              p.instructions[0].arguments.push_back(pre);
            }),
            "[linear] pre must have its rows as far apart as y"));
  CHECK(has(error_of([](Program& p) { p.buffers[2].offset = 1 << 20; }), "[program] buffer 2 ends at"));
  CHECK(has(error_of([](Program& p) { p.buffers[2].offset = INT64_MAX; }), "[program] buffer 2"));
  CHECK(has(error_of([](Program& p) { p.buffers[1].offset = 2; }), "[program] buffer 1 is field 2: there are 2"));
}

TEST_CASE("the rows of results of two dtypes are compared in elements") {
  const Perceptron shape{4, 3, 2, 2};
  Program p = shape.program();
  for (const char* name : {"x", "w", "y"}) {
    argument(p, 0, name).dtype = Dtype::kBfloat16;
    reshape(argument(p, 0, name), argument(p, 0, name).shape);
  }
  Argument pre = argument(p, 0, "y");
  pre.operand = find_operand(*p.instructions[0].op, "pre");
  pre.dtype = Dtype::kFloat32;
  reshape(pre, pre.shape);
  p.instructions[0].arguments.push_back(pre);
  CHECK_NOTHROW(check_instruction(p.instructions[0]));
  for (const int64_t bytes : {pre.strides[0] / 2, pre.strides[0] * 2, pre.strides[0] + 4}) {
    argument(p, 0, "pre").strides[0] = bytes;
    std::string error;
    try {
      check_instruction(p.instructions[0]);
    } catch (const Error& refused) {
      error = refused.what();
    }
    CHECK(has(error, "[linear] pre"));
  }
}

TEST_CASE("a call that its op does not allow is refused, and the error names the layer") {
  CHECK(has(error_of([](Program& p) { p.instructions[3].op = nullptr; }), "[program] no such op (instruction 3)"));
  CHECK(has(error_of([](Program& p) { p.instructions[0].op = find_schema("linear_vjp"); }), "no place in a program"));
  CHECK(has(error_of([](Program& p) {
              p.instructions[1].origin = "2.Linear(2, 2)";
              p.instructions[1].arguments.pop_back();
            }),
            "[linear] y is missing (instruction 1, 2.Linear(2, 2))"));
  CHECK(has(error_of([](Program& p) { p.instructions[0].arguments.push_back(p.instructions[0].arguments[0]); }),
            "twice"));
  CHECK(has(error_of([](Program& p) { p.instructions[0].arguments[0].operand = 77; }), "operand 77 is unknown"));
  CHECK(has(error_of([](Program& p) { p.instructions[0].attributes.clear(); }), "has 0 attributes"));
  CHECK(has(error_of([](Program& p) { p.instructions[0].attributes[0].integer = 9; }), "activation"));
  CHECK(has(error_of([](Program& p) { p.instructions[7].attributes[0].real = -1; }), "momentum"));
  CHECK(has(error_of([](Program& p) {
              Argument& step = argument(p, 3, "finite");
              step = argument(p, 3, "totals");
              step.operand = find_operand(*p.instructions[3].op, "finite");
            }),
            "must be a field of the step record"));
}

TEST_CASE("a resource must be there and of the kind that its op asks for") {
  struct Other final : Resource {
    const char* kind() const noexcept override { return "other"; }
  };
  struct Succeeds final : Callback {
    bool call(void* const*, int) noexcept override { return true; }
  };
  const auto with = [](std::vector<std::shared_ptr<Resource>> resources, int64_t number) {
    return error_of([&](Program& p) {
      testing::ProgramMaker make;
      make.program = p;
      const testing::View x = make.view(BufferKind::kInput, Dtype::kFloat32, {4, 3}, 0);
      const testing::View y = make.view(BufferKind::kTemp, Dtype::kFloat32, {4, 1}, 0);
      const testing::View answer = make.view(BufferKind::kTemp, Dtype::kInt64, {1}, 64);
      make.emit("function", {{"x", x}, {"y", y}, {"answer", answer}}, {{"function", integer_value(number)}});
      p = make.program;
      p.resources = resources;
    });
  };
  CHECK(with({std::make_shared<Succeeds>()}, 0).empty());
  CHECK(has(with({std::make_shared<Other>()}, 0), "[function] function is number 0"));
  CHECK(has(with({std::make_shared<Succeeds>()}, 1), "must be a callback"));
  CHECK(has(with({nullptr}, 0), "must be a callback"));
  CHECK(has(with({std::make_shared<Succeeds>()}, -1), "must be a callback"));
}

TEST_CASE("operations are counted by the schemas, on the usual route") {
  Program program = Perceptron{32, 64, 32, 10}.program();
  const double all = count_flops(program);
  CHECK(all > 3 * 2.0 * 32 * (64 * 32 + 32 * 10) - 2.0 * 32 * 64 * 32);
  program.instructions.back().when = When::kUnbounded;
  CHECK(count_flops(program) < all);
}

TEST_CASE("an arena is known by its name, and its memory must suit the program") {
  CHECK(has(error_of([](Program& p) { p.arenas[0].name = "elsewhere"; }), "arena elsewhere has no memory"));
  CHECK(has(error_of([](Program& p) { p.arenas[0].name = p.arenas[1].name; }), "is there twice"));
  CHECK(has(error_of([](Program& p) { p.arenas[0].bytes += 1 << 20; }), "bytes, its memory has"));
  CHECK(has(error_of([](Program& p) { p.arenas[0].bytes = -1; }), "has -1 bytes"));
  CHECK(has(error_of([](Program& p) { p.arenas[0].kind = BufferKind::kInput; }), "of a kind that has none"));
  CHECK(has(error_of([](Program& p) { p.buffers[2].arena = 77; }), "buffer 2 lies in arena 77"));
  CHECK(has(error_of([](Program& p) { p.buffers[2].arena = -1; }), "buffer 2 lies in arena -1"));
  CHECK(has(error_of([](Program& p) { p.buffers[2].kind = BufferKind::kGrad; }), "is of kind grad, its arena param"));
}

TEST_CASE("a program may have several arenas of one kind, which must lie apart") {
  const Perceptron shape{4, 3, 2, 2};
  Memory<float> memory(shape);
  AlignedArena plane(memory.grad.size());
  Team team(1);
  Program program = shape.program();
  const auto named = [&](const char* name) {
    const auto at =
        std::find_if(program.arenas.begin(), program.arenas.end(), [&](const Arena& a) { return a.name == name; });
    return static_cast<int32_t>(at - program.arenas.begin());
  };
  // The gradient of the first weight goes to an arena of its own, but the update reads the old arena.
  const Arena grads = program.arenas[static_cast<size_t>(named("grad"))];
  program.arenas.push_back({"plane", BufferKind::kGrad, grads.bytes});
  program.buffers[static_cast<size_t>(argument(program, 6, "dw").buffer)].arena = named("plane");
  CHECK_THROWS_WITH_AS(Executor(program, memory.arenas, team), doctest::Contains("arena plane has no memory"), Error);
  memory.arenas.set("plane", BufferKind::kGrad, memory.grad.data(), static_cast<int64_t>(memory.grad.size()));
  CHECK_THROWS_WITH_AS(Executor(program, memory.arenas, team), doctest::Contains("arena plane shares memory with grad"),
                       Error);
  memory.arenas.set("plane", BufferKind::kGrad, plane.data(), static_cast<int64_t>(plane.size()));
  const std::vector<float> before = memory.copy(shape);
  Executor executor(program, memory.arenas, team);
  const testing::Samples<float> samples(shape.rows, shape.in, shape.out);
  executor.bind(samples.batch(shape.rows));
  StepRecord given;
  given.learning_rate = 0.1;
  team.run(1, [&](const Lane& lane) noexcept { executor.run(lane, given, nullptr); });
  const auto* gradient = reinterpret_cast<const float*>(plane.data());
  CHECK(std::any_of(gradient, gradient + shape.in * shape.hidden, [](float g) { return g != 0; }));
  const std::vector<float> after = memory.copy(shape);
  for (int64_t i = 0; i < shape.in * shape.hidden; ++i) {
    CHECK(memory.grads()[i] == 0);
    CHECK(after[static_cast<size_t>(i)] == before[static_cast<size_t>(i)]);
  }
  CHECK(after != before);
}

}  // namespace gradring
