// The C interface. It checks all arguments and turns exceptions into error codes.
#include <algorithm>

#include "capi/guarded.h"
#include "gradring/gradring.h"
#include "ops/matmul/matmul.h"
#include "runtime/cpu.h"
#include "runtime/status.h"
#include "runtime/team.h"

struct gradring_team {
  explicit gradring_team(int lanes) : team(lanes) {}
  gradring::Team team;
};

namespace gradring {

namespace {

using capi::guarded;
using capi::require;

static_assert(GRADRING_INVALID_ARGUMENT == static_cast<int>(Code::kInvalidArgument) &&
              GRADRING_OUT_OF_MEMORY == static_cast<int>(Code::kOutOfMemory) &&
              GRADRING_INTERNAL == static_cast<int>(Code::kInternal));

// Checks the pointer and the leading dimension of a matrix that lies in memory as `rows` rows of `columns` elements.
void check_matrix(const char* name, const void* data, int64_t rows, int64_t columns, int64_t leading) {
  require(leading >= std::max<int64_t>(columns, 1),
          Status(Code::kInvalidArgument, "[matmul] ld%s is %lld: must be at least the row's length, %lld", name,
                 static_cast<long long>(leading), static_cast<long long>(columns)));
  require(data || rows == 0 || columns == 0, Status(Code::kInvalidArgument, "[matmul] %s is NULL", name));
}

template <class T>
int multiply(gradring_team* team, const MatmulArguments<T>& g) noexcept {
  return guarded([&] {
    require(team, Status(Code::kInvalidArgument, "[matmul] team is NULL"));
    require(g.m >= 0 && g.n >= 0 && g.k >= 0,
            Status(Code::kInvalidArgument, "[matmul] m, n, k are %lld, %lld, %lld: must not be negative",
                   static_cast<long long>(g.m), static_cast<long long>(g.n), static_cast<long long>(g.k)));
    check_matrix("a", g.a, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, g.lda);
    check_matrix("b", g.b, g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, g.ldb);
    check_matrix("c", g.c, g.m, g.n, g.ldc);
    const int lanes = matmul_lanes(g, team->team.lanes());
    const ScratchBytes bytes = matmul_scratch(g, lanes);
    team->team.reserve(bytes.per_lane, bytes.shared);
    team->team.run(lanes, [&](const Lane& lane) { matmul(lane, g); });
  });
}

template <class T>
MatmulArguments<T> arguments_of(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, int trans_a, const T* b,
                                int64_t ldb, int trans_b, T* c, int64_t ldc, int accumulate) noexcept {
  MatmulArguments<T> g;
  g.m = m, g.n = n, g.k = k;
  g.a = a, g.lda = lda, g.trans_a = trans_a != 0;
  g.b = b, g.ldb = ldb, g.trans_b = trans_b != 0;
  g.c = c, g.ldc = ldc;
  g.epilogue.accumulate = accumulate != 0;
  return g;
}

}  // namespace

}  // namespace gradring

using gradring::Code;
using gradring::Status;

const char* gradring_version(void) { return GRADRING_VERSION; }

int gradring_abi_version(void) { return GRADRING_ABI_VERSION; }

const char* gradring_last_error(void) { return gradring::capi::last_error; }

int gradring_team_create(int lanes, gradring_team** team) {
  return gradring::capi::guarded([&] {
    gradring::capi::require(team, Status(Code::kInvalidArgument, "[team] team is NULL"));
    *team = new gradring_team(lanes == 0 ? std::min(gradring::usable_cores(), 256) : lanes);
  });
}

void gradring_team_destroy(gradring_team* team) { delete team; }

int gradring_team_lanes(const gradring_team* team) { return team ? team->team.lanes() : 0; }

int gradring_matmul_f32(gradring_team* team, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, int trans_a,
                        const float* b, int64_t ldb, int trans_b, float* c, int64_t ldc, int accumulate) {
  return gradring::multiply(team,
                            gradring::arguments_of(m, n, k, a, lda, trans_a, b, ldb, trans_b, c, ldc, accumulate));
}

int gradring_matmul_f64(gradring_team* team, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, int trans_a,
                        const double* b, int64_t ldb, int trans_b, double* c, int64_t ldc, int accumulate) {
  return gradring::multiply(team,
                            gradring::arguments_of(m, n, k, a, lda, trans_a, b, ldb, trans_b, c, ldc, accumulate));
}
