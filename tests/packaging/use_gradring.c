/* A C99 program that multiplies matrices through the installed header and library, and checks every number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradring/gradring.h"

#define EXPECT(condition)                                                                 \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, gradring_last_error()); \
      return 1;                                                                           \
    }                                                                                     \
  } while (0)

enum { M = 37, N = 50, K = 64, LDA = 70 };

static double at(int i, int j) { return (double)((i * 7 + j * 3) % 11) - 5.0; }

static int both_types(gradring_team* team) {
  static float a[K * LDA], b[K * N], c[M * N];
  static double a64[M * LDA], b64[N * K], c64[M * N];
  for (int i = 0; i < M; ++i) {
    for (int p = 0; p < K; ++p) a[p * LDA + i] = (float)(a64[i * LDA + p] = at(i, p)); /* a is stored transposed */
  }
  for (int p = 0; p < K; ++p) {
    for (int j = 0; j < N; ++j) b[p * N + j] = (float)(b64[j * K + p] = at(p, j)); /* b64 is stored transposed */
  }
  EXPECT(gradring_matmul_f32(team, M, N, K, a, LDA, 1, b, N, 0, c, N, 0) == GRADRING_OK);
  EXPECT(gradring_matmul_f32(team, M, N, K, a, LDA, 1, b, N, 0, c, N, 1) == GRADRING_OK);
  EXPECT(gradring_matmul_f64(team, M, N, K, a64, LDA, 0, b64, K, 1, c64, N, 0) == GRADRING_OK);
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      double sum = 0;
      for (int p = 0; p < K; ++p) sum += at(i, p) * at(p, j);
      EXPECT(c64[i * N + j] == sum);
      EXPECT(c[i * N + j] == (float)(2 * sum));
    }
  }
  return 0;
}

static int errors(gradring_team* team) {
  gradring_team* none = NULL;
  float x[4] = {0};
  EXPECT(gradring_team_create(-1, &none) == GRADRING_INVALID_ARGUMENT);
  EXPECT(strstr(gradring_last_error(), "threads is -1: must be between 1 and 256") != NULL);
  EXPECT(none == NULL);
  EXPECT(gradring_team_create(1, NULL) == GRADRING_INVALID_ARGUMENT);
  EXPECT(gradring_matmul_f32(NULL, 2, 2, 1, x, 1, 0, x, 2, 0, x, 2, 0) == GRADRING_INVALID_ARGUMENT);
  EXPECT(gradring_matmul_f32(team, -2, 2, 1, x, 1, 0, x, 2, 0, x, 2, 0) == GRADRING_INVALID_ARGUMENT);
  EXPECT(gradring_matmul_f32(team, 2, 2, 1, NULL, 1, 0, x, 2, 0, x, 2, 0) == GRADRING_INVALID_ARGUMENT);
  EXPECT(strcmp(gradring_last_error(), "[matmul] a is NULL") == 0);
  EXPECT(gradring_matmul_f32(team, 2, 2, 1, x, 1, 0, x, 1, 0, x, 2, 0) == GRADRING_INVALID_ARGUMENT);
  EXPECT(strcmp(gradring_last_error(), "[matmul] ldb is 1: must be at least the row's length, 2") == 0);
  EXPECT(gradring_matmul_f32(team, 0, 0, 0, NULL, 1, 0, NULL, 1, 0, NULL, 1, 0) == GRADRING_OK);
  return 0;
}

int main(void) {
  EXPECT(strcmp(gradring_version(), GRADRING_VERSION) == 0);
  EXPECT(gradring_abi_version() == GRADRING_ABI_VERSION);
  for (int lanes = 0; lanes <= 3; ++lanes) {
    gradring_team* team = NULL;
    EXPECT(gradring_team_create(lanes, &team) == GRADRING_OK);
    EXPECT(lanes == 0 ? gradring_team_lanes(team) >= 1 : gradring_team_lanes(team) == lanes);
    if (both_types(team) || errors(team)) return 1;
    gradring_team_destroy(team);
  }
  gradring_team_destroy(NULL);
  puts("ok");
  return 0;
}
