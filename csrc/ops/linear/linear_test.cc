#include "ops/linear/linear.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "ops/activation/activation_ref.h"
#include "ops/linear/parts.h"
#include "ops/matrix_view.h"
#include "ops/op.h"
#include "ops/testing.h"

using namespace gradring;
using testing::uniform;

namespace {

template <class T>
bool close(const std::vector<T>& got, const std::vector<double>& expected, double scale) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - expected[i]);
    if (!(error <= scale * std::numeric_limits<T>::epsilon())) return false;
  }
  return true;
}

template <class T>
void check_one(Team& team, int64_t rows, int64_t in, int64_t out, Activation activation) {
  const auto dy = testing::normal<T>(rows * out), x = testing::normal<T>(rows * in), w = testing::normal<T>(in * out),
             saved = testing::normal<T>(rows * out);
  std::vector<double> g(dy.size()), dx(x.size()), dw(w.size()), db(static_cast<size_t>(out));
  const auto at = [](int64_t i, int64_t j, int64_t ld) { return static_cast<size_t>(i * ld + j); };
  for (size_t i = 0; i < g.size(); ++i) g[i] = reference::activate_backward(activation, dy[i], saved[i]);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < out; ++j) {
      db[static_cast<size_t>(j)] += g[at(i, j, out)];
      for (int64_t p = 0; p < in; ++p) {
        dx[at(i, p, in)] += g[at(i, j, out)] * w[at(p, j, out)];
        dw[at(p, j, out)] += g[at(i, j, out)] * x[at(i, p, in)];
      }
    }
  std::vector<T> first_dx, first_dw, first_db;
  for (int lanes : {1, 2, 3, 8}) {
    std::vector<T> got_dx(x.size()), got_dw(w.size()), got_db(static_cast<size_t>(out));
    LinearVjpArguments<T> p;
    p.rows = rows, p.in = in, p.out = out;
    p.dy = dy.data(), p.dy_ld = out, p.x = x.data(), p.x_ld = in, p.w = w.data(), p.w_ld = out;
    p.activation = activation, p.saved = saved.data(), p.saved_ld = out;
    p.dx = got_dx.data(), p.dx_ld = in, p.dw = got_dw.data(), p.dw_ld = out, p.db = got_db.data();
    const ScratchBytes bytes = linear_vjp_scratch(p, lanes);
    team.reserve(bytes.per_lane, bytes.shared);
    team.run(lanes, [&](const Lane& lane) { linear_vjp(lane, p); });
    const double most = static_cast<double>(rows + in + out + 4);
    CHECK(close(got_dx, dx, 32 * most));
    CHECK(close(got_dw, dw, 32 * most));
    CHECK(close(got_db, db, 32 * most));
    if (lanes == 1) {
      first_dx = got_dx, first_dw = got_dw, first_db = got_db;
    } else {
      CHECK(got_dx == first_dx);
      CHECK(got_dw == first_dw);
      CHECK(got_db == first_db);
    }
  }
}

}  // namespace

TEST_CASE("linear_vjp agrees with plain sums, the same bits for any number of lanes") {
  testing::for_each_isa([] {
    Team team(8);
    for (int activation = 0; activation <= 5; ++activation) {
      for (int round = 0; round < 10; ++round) {
        check_one<float>(team, uniform(0, 40), uniform(0, 90), uniform(0, 90), static_cast<Activation>(activation));
        check_one<double>(team, uniform(0, 40), uniform(0, 90), uniform(0, 90), static_cast<Activation>(activation));
      }
    }
  });
}

TEST_CASE("a product in two parts has memory for each of them, although they may be multiplied in different ways") {
  const OpSchema* op = find_schema("linear");
  REQUIRE(op != nullptr);
  const std::vector<AttributeValue> first_choices(op->attributes.size(), integer_value(0));
  int unlike = 0;  // how often the first part needs more than the second one
  testing::for_each_isa([&] {
    for (int turn = 0; turn < 4000; ++turn) {
      MatmulArguments<double> g;
      g.m = uniform(1, 70), g.n = uniform(1, 70), g.k = uniform(1, 70);
      g.trans_a = uniform(0, 1) == 1, g.trans_b = uniform(0, 1) == 1;
      g.lda = g.trans_a ? g.m : g.k, g.ldb = g.trans_b ? g.k : g.n, g.ldc = g.n;
      const int64_t x_shape[] = {g.m, g.k}, w_shape[] = {g.k, g.n}, y_shape[] = {g.m, g.n},
                    parts_shape[] = {2, g.m, g.n};
      const auto strides = [](int64_t leading, bool turned) {
        return turned ? std::vector<int64_t>{8, leading * 8} : std::vector<int64_t>{leading * 8, 8};
      };
      const std::vector<int64_t> x = strides(g.lda, g.trans_a), w = strides(g.ldb, g.trans_b), y = strides(g.n, false),
                                 parts{g.m * g.n * 8, g.n * 8, 8};
      double memory = 0;  // nothing is read or written here
      std::vector<Tensor> tensors(op->operands.size());
      const auto set = [&](const char* name, const int64_t* shape, const int64_t* between, int rank) {
        tensors[static_cast<size_t>(find_operand(*op, name))] = {&memory, shape, between, rank, Dtype::kFloat64};
      };
      set("x", x_shape, x.data(), 2), set("w", w_shape, w.data(), 2);
      set("y", y_shape, y.data(), 2), set("parts", parts_shape, parts.data(), 3);
      OpCall call;
      call.op = op, call.name = op->name, call.tensors = tensors.data(), call.attributes = first_choices.data();
      OpWork work;
      op->work(call, 1, &work);
      // With one row or column, both layouts are the same memory.
      const MatrixView a = matrix_view(tensors[0]), b = matrix_view(tensors[1]);
      g.lda = a.leading, g.trans_a = a.transposed, g.ldb = b.leading, g.trans_b = b.transposed;
      size_t needs[2];
      for (int part = 0; part < 2; ++part) {
        needs[part] = matmul_scratch(part_of(g, part, static_cast<double*>(nullptr)), 1).per_lane;
        INFO(g.m, " ", g.n, " ", g.k, " ", g.trans_a, " ", g.trans_b, " part ", part);
        REQUIRE(work.scratch.per_lane >= needs[part]);
      }
      unlike += needs[0] > needs[1];
    }
  });
  CHECK(unlike > 0);
}
