/* gradring's C interface: C99, opaque handles, int codes.
 *
 * Every function that returns int returns 0 (GRADRING_OK) or an error code, and then gradring_last_error() says, for
 * the calling thread, what was wrong. Symbols are added, never changed; an incompatible change would raise
 * GRADRING_ABI_VERSION. Link with libgradring.so; `python -c "import gradring; print(gradring.get_include(),
 * gradring.get_library())"` tells where both are.
 */
#ifndef GRADRING_GRADRING_H
#define GRADRING_GRADRING_H

#include <stdint.h>

#include "gradring/export.h"

#define GRADRING_VERSION "0.1.0"
#define GRADRING_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

enum { GRADRING_OK = 0, GRADRING_INVALID_ARGUMENT = 1, GRADRING_OUT_OF_MEMORY = 3, GRADRING_INTERNAL = 10 };

/* The library that is loaded; compare with the macros above. */
GRADRING_API const char* gradring_version(void);
GRADRING_API int gradring_abi_version(void);

/* Why the last call that failed on this thread failed; "" if none has. The text is valid until the next call that fails. */
GRADRING_API const char* gradring_last_error(void);

/* A fixed set of threads, started by the first call that needs them. One call at a time may use a team. */
typedef struct gradring_team gradring_team;

/* `lanes` is the number of threads, the caller's included, from 1 to 256; 0 means one per core that this process may use. */
GRADRING_API int gradring_team_create(int lanes, gradring_team** team);
GRADRING_API void gradring_team_destroy(gradring_team* team); /* NULL is fine */
GRADRING_API int gradring_team_lanes(const gradring_team* team);

/* C = op(A) op(B), or C += op(A) op(B) if `accumulate`; row-major. op(A) is m x k, op(B) k x n, C m x n. lda, ldb and
 * ldc count elements between the rows of A, B and C as they lie in memory. C must not overlap A or B. The result has
 * the same bits for any number of lanes. */
GRADRING_API int gradring_matmul_f32(gradring_team* team, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
                                     int trans_a, const float* b, int64_t ldb, int trans_b, float* c, int64_t ldc,
                                     int accumulate);
GRADRING_API int gradring_matmul_f64(gradring_team* team, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda,
                                     int trans_a, const double* b, int64_t ldb, int trans_b, double* c, int64_t ldc,
                                     int accumulate);

/* One rank of a group of threads or processes of this host, which reduce arrays together. All ranks make the same calls in the
 * same order. A group is used by one thread at a time; after GRADRING_PEER_DIED, GRADRING_PEER_STALLED or GRADRING_MISMATCH it
 * refuses every call. */
typedef struct gradring_group gradring_group;

enum {
  GRADRING_CLOSED = 6,
  GRADRING_UNAVAILABLE = 8,
  GRADRING_PEER_DIED = 11,
  GRADRING_PEER_STALLED = 12,
  GRADRING_MISMATCH = 13
};

enum {
  GRADRING_FLOAT32 = 0,
  GRADRING_FLOAT64 = 1,
  GRADRING_FLOAT16 = 2,
  GRADRING_BFLOAT16 = 3,
  GRADRING_INT32 = 6,
  GRADRING_INT64 = 7
};
enum { GRADRING_SUM = 0, GRADRING_MEAN = 1, GRADRING_MAX = 2, GRADRING_MIN = 3, GRADRING_PROD = 4 };

/* `groups` gets `size` groups, one for each thread. timeout, in seconds: how long an operation may wait for other ranks. */
GRADRING_API int gradring_group_create_threads(int size, double timeout, gradring_group** groups);

/* For processes: descriptors of a control segment (one for a group) and of data segments (one for each rank), made before the ranks
 * start or sent to them; the caller closes them. */
GRADRING_API int gradring_group_segment(int size, int* fd);
GRADRING_API int gradring_group_data_segment(int* fd);
/* Joins as `rank`. pidfds[i] is rank i's pidfd, or -1; data_fds[i] its data segment. The descriptors stay the caller's. */
GRADRING_API int gradring_group_join(int segment_fd, int rank, int size, uint64_t generation, const int* pidfds,
                                     const int* data_fds, double timeout, gradring_group** group);
GRADRING_API void gradring_group_destroy(gradring_group* group); /* NULL is fine */
GRADRING_API int gradring_group_rank(const gradring_group* group);
GRADRING_API int gradring_group_size(const gradring_group* group);

/* Memory that all ranks can access, so that operations on it copy nothing. Free it before the group is destroyed. */
GRADRING_API int gradring_group_allocate(gradring_group* group, uint64_t bytes, void** memory);
GRADRING_API void gradring_group_free(gradring_group* group, void* memory);

/* out = the reduction of `in` over all ranks, element by element, in rank order; out may be in. */
GRADRING_API int gradring_all_reduce(gradring_group* group, const void* in, void* out, int64_t count, int dtype,
                                     int op);
GRADRING_API int gradring_barrier(gradring_group* group);

#ifdef __cplusplus
}
#endif

#endif
