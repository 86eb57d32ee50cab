// Tests ops that exist only in programs, each against the obvious loop, on one lane and on several.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "program/cpu/executor.h"
#include "program/testing.h"
#include "runtime/arena.h"

namespace gradring {

using testing::ProgramMaker;
using testing::View;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A program whose buffers lie in one piece of memory, with a function that runs it.
struct Bench {
  ProgramMaker make;
  AlignedArena memory{1 << 22};
  int64_t used = 0;
  StepRecord given;

  template <class T>
  View temp(std::vector<int64_t> shape, const std::vector<T>& values = {}) {
    const View view = make.view(BufferKind::kTemp, dtype_of<T>(), std::move(shape), used);
    const int64_t bytes = make.program.buffers.back().bytes;
    REQUIRE(used + bytes <= static_cast<int64_t>(memory.size()));
    if (!values.empty()) std::memcpy(memory.data() + used, values.data(), values.size() * sizeof(T));
    used += (bytes + 63) / 64 * 64;
    return view;
  }

  template <class T>
  std::vector<T> read(const View& view) const {
    const Buffer& buffer = make.program.buffers[static_cast<size_t>(view.buffer)];
    const T* begin = reinterpret_cast<const T*>(memory.data() + buffer.offset);
    return std::vector<T>(begin, begin + buffer.bytes / static_cast<int64_t>(sizeof(T)));
  }

  // The records of all lanes after one step.
  std::vector<StepRecord> run(int lanes) {
    Arenas arenas;
    testing::set_arena(&arenas, BufferKind::kTemp, memory);
    Team team(lanes);
    Executor executor(make.program, arenas, team);
    std::vector<StepRecord> records(static_cast<size_t>(lanes));
    team.run(lanes, [&](const Lane& lane) noexcept {
      records[static_cast<size_t>(lane.index)] = executor.run(lane, given, nullptr);
    });
    return records;
  }

  template <class T>
  static Dtype dtype_of() {
    return std::is_same_v<T, float> ? Dtype::kFloat32 : std::is_same_v<T, double> ? Dtype::kFloat64 : Dtype::kInt64;
  }
};

template <class T>
std::vector<T> random(int64_t n, unsigned seed) {
  std::vector<T> values(static_cast<size_t>(n));
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  for (T& v : values) v = static_cast<T>(normal(generator));
  return values;
}

template <class T>
void check_elementwise(int64_t n, int lanes) {
  Bench bench;
  const std::vector<T> a = random<T>(n, 1), b = random<T>(n, 2);
  const View va = bench.temp({n}, a), vb = bench.temp({n}, b), sum = bench.temp<T>({n}), twin = bench.temp<T>({n});
  bench.make.emit("add", {{"a", va}, {"b", vb}, {"y", sum}});
  bench.make.emit("copy", {{"x", sum}, {"y", twin}});
  bench.make.emit("accumulate", {{"sum", twin}, {"gradient", vb}});
  bench.run(lanes);
  const std::vector<T> got = bench.read<T>(sum), grown = bench.read<T>(twin);
  for (size_t i = 0; i < a.size(); ++i) {
    REQUIRE(got[i] == a[i] + b[i]);
    REQUIRE(grown[i] == a[i] + b[i] + b[i]);
  }
}

}  // namespace

TEST_CASE("add, copy and accumulate do what their names say, of any size and on any number of lanes") {
  for (const int lanes : {1, 2, 3}) {
    for (const int64_t n : {1, 7, 1023, 1025, 100001}) {
      check_elementwise<float>(n, lanes);
      check_elementwise<double>(n, lanes);
    }
  }
}

TEST_CASE("column sums and largest agree with the obvious loops") {
  for (const int lanes : {1, 3}) {
    Bench bench;
    const int64_t rows = 333, columns = 37;
    std::vector<double> x = random<double>(rows * columns, 3);
    const View vx = bench.temp({rows, columns}, x), sums = bench.temp<double>({columns});
    const View most = bench.temp<double>({(rows * columns + 4095) / 4096});
    bench.make.emit("column_sums", {{"x", vx}, {"y", sums}});
    bench.make.emit("largest", {{"x", vx}, {"y", most}});
    bench.run(lanes);
    const std::vector<double> got = bench.read<double>(sums), blocks = bench.read<double>(most);
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r) sum += x[static_cast<size_t>(r * columns + c)];
      CHECK(got[static_cast<size_t>(c)] == doctest::Approx(sum).epsilon(1e-12));
    }
    for (size_t b = 0; b < blocks.size(); ++b) {
      double largest = 0;
      for (size_t i = b * 4096; i < std::min((b + 1) * 4096, x.size()); ++i)
        largest = std::max(largest, std::abs(x[i]));
      CHECK(blocks[b] == largest);
    }
  }
}

TEST_CASE("the check of a step divides by the weights of its samples, and finds weights that cannot be") {
  for (const int lanes : {1, 3}) {
    for (const double weight : {2.5, 0.0}) {
      for (const int64_t bad : {-1, 3}) {
        for (const bool need : {true, false}) {
          Bench bench;
          bench.given.pending_weight = 0.5;
          bench.given.need_weight = need;
          LossTotals found;
          found.loss = 10, found.weight = weight, found.bad_weight = bad;
          std::vector<int64_t> words(sizeof(LossTotals) / sizeof(int64_t));
          std::memcpy(words.data(), &found, sizeof found);
          const View totals = bench.temp({static_cast<int64_t>(words.size())}, words);
          bench.make.emit("check_step",
                          {{"totals", totals},
                           {"pending", {}},
                           {"loss_sum", {}},
                           {"weight", {}},
                           {"correct", {}},
                           {"finite", {}},
                           {"total_weight", {}}},
                          {{"rows", integer_value(4)}, {"weighted", integer_value(1)}});
          for (const StepRecord& step : bench.run(lanes)) {
            CHECK(step.loss_weight == weight);
            CHECK(step.total_weight == weight + 0.5);
            CHECK((step.fault == Fault::kWeight) == (bad >= 0 || (need && weight == 0)));
            if (bad >= 0) CHECK(step.fault_row == bad);
          }
        }
      }
    }
  }
}

TEST_CASE("the check of a step fills the record of every lane") {
  for (const int lanes : {1, 2, 5}) {
    for (const double loss : {12.5, kInfinity, -kInfinity, double{NAN}}) {
      for (const bool finite : {true, false}) {
        Bench bench;
        bench.given.check_finite = finite;
        bench.given.pending_weight = 8;
        std::vector<int64_t> words(sizeof(LossTotals) / sizeof(int64_t), -1);
        std::memcpy(words.data(), &loss, 8);
        words[1] = 3;
        const View totals = bench.temp({static_cast<int64_t>(words.size())}, words);
        bench.make.emit("check_step",
                        {{"totals", totals},
                         {"pending", {}},
                         {"loss_sum", {}},
                         {"weight", {}},
                         {"correct", {}},
                         {"finite", {}},
                         {"total_weight", {}}},
                        {{"rows", integer_value(4)}});
        for (const StepRecord& step : bench.run(lanes)) {
          CHECK(step.loss_weight == 4);
          CHECK(step.total_weight == 12);
          CHECK(step.correct == 3);
          CHECK(step.fault == (finite && !std::isfinite(loss) ? Fault::kNonFinite : Fault::kNone));
        }
      }
    }
  }
}

TEST_CASE("clip takes the factor from the norm of the mean gradient, and finds what is not finite") {
  for (const int lanes : {1, 3}) {
    for (const bool weighted : {false, true}) {
      Bench bench;
      bench.given.total_weight = 4;
      const std::vector<float> gradient = random<float>(5000, 4);
      const View g = bench.temp({5000}, gradient), sum = bench.temp<double>({1});
      bench.make.emit("sum_of_squares", {{"gradient", g}, {"sum", sum}});
      std::vector<std::pair<std::string_view, View>> operands{{"sum", sum}, {"clip", {}}, {"norm", {}}};
      if (weighted) operands.push_back({"weight", {}});
      bench.make.emit("clip", operands, {{"limit", real_value(0.5)}});
      double squares = 0;
      for (const float v : gradient) squares += static_cast<double>(v) * static_cast<double>(v);
      const double norm = std::sqrt(squares) / (weighted ? 4 : 1);
      for (const StepRecord& step : bench.run(lanes)) {
        CHECK(step.gradient_norm == doctest::Approx(norm).epsilon(1e-6));
        CHECK(step.clip == doctest::Approx(0.5 / norm).epsilon(1e-5));
        CHECK(step.fault == Fault::kNone);
      }
      reinterpret_cast<float*>(bench.memory.data())[77] = INFINITY;
      for (const StepRecord& step : bench.run(lanes)) CHECK(step.fault == Fault::kGradient);
      bench.given.check_finite = false;
      for (const StepRecord& step : bench.run(lanes)) CHECK(step.fault == Fault::kNone);
    }
  }
}

TEST_CASE("a bound that overflows sends every lane to the other route, and a bound that holds does not") {
  struct Case {
    float x, dy;
    bool bounded;
  };
  for (const Case& c : {Case{1e10f, 1e10f, true}, Case{1e20f, 1e19f, false}, Case{1e-30f, 1e37f, true},
                        Case{INFINITY, 1, false}, Case{NAN, 1, false}, Case{1, NAN, false}, Case{0, INFINITY, false}}) {
    for (const int lanes : {1, 2}) {
      Bench bench;
      const View x = bench.temp({2}, std::vector<float>{0.5f, c.x}), dy = bench.temp({1}, std::vector<float>{c.dy});
      bench.make.emit("bound_gradient", {{"x", x}, {"dy", dy}, {"bounded", {}}}, {{"rows", integer_value(8)}});
      const auto bit = [&](const StepRecord& step, When when) {
        return (step.moment & static_cast<uint8_t>(when)) != 0;
      };
      for (const StepRecord& step : bench.run(lanes)) {
        CHECK(bit(step, When::kBounded) == c.bounded);
        CHECK(bit(step, When::kUnbounded) == !c.bounded);
        CHECK(step.fault == Fault::kNone);
      }
    }
  }
}

TEST_CASE("check_gradients stops every lane before what follows") {
  for (const int lanes : {1, 2}) {
    Bench bench;
    const View blocks = bench.temp({2}, std::vector<double>{1, kInfinity}), out = bench.temp<double>({2});
    bench.make.emit("check_gradients", {{"largest", blocks}});
    bench.make.emit("copy", {{"x", blocks}, {"y", out}});
    for (const StepRecord& step : bench.run(lanes)) CHECK(step.fault == Fault::kGradient);
    CHECK(bench.read<double>(out) == std::vector<double>{0, 0});
  }
}

TEST_CASE("a function is called once, by lane 0, with its operands in order, and may end the step") {
  struct Doubles final : Callback {
    bool succeeds = true;
    int calls = 0;

    bool call(void* const* memory, int count) noexcept override {
      ++calls;
      const auto* x = static_cast<const double*>(memory[0]);
      auto* y = static_cast<double*>(memory[count - 1]);
      for (int i = 0; i < 6; ++i) y[i] = 2 * x[i];
      return succeeds;
    }
  };
  for (const int lanes : {1, 2, 3}) {
    for (const bool succeeds : {true, false}) {
      auto doubles = std::make_shared<Doubles>();
      doubles->succeeds = succeeds;
      Bench bench;
      const View x = bench.temp({3, 2}, std::vector<double>{1, 2, 3, 4, 5, 6}), y = bench.temp<double>({3, 2});
      const View answer = bench.temp<int64_t>({1}), twin = bench.temp<double>({3, 2});
      bench.make.program.resources.push_back(doubles);
      bench.make.emit("function", {{"x", x}, {"y", y}, {"answer", answer}}, {{"function", integer_value(0)}});
      bench.make.emit("copy", {{"x", y}, {"y", twin}});
      for (const StepRecord& step : bench.run(lanes)) CHECK(step.fault == (succeeds ? Fault::kNone : Fault::kCallback));
      CHECK(doubles->calls == 1);
      CHECK(bench.read<double>(y) == std::vector<double>{2, 4, 6, 8, 10, 12});
      CHECK(bench.read<double>(twin)[0] == (succeeds ? 2 : 0));
    }
  }
}

}  // namespace gradring
