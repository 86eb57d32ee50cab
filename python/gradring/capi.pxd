# cython: language_level=3
# gradring's C interface for Cython: `from gradring.capi cimport ...`. The header says what each function does:
# gradring/gradring.h, in the folder that gradring.get_include() names. Import gradring._core before your extension module,
# which loads libgradring.so; link with the file that gradring.get_library() names.
from libc.stdint cimport int64_t, uint64_t

cdef extern from "gradring/gradring.h" nogil:
    const char* GRADRING_VERSION
    int GRADRING_ABI_VERSION

    enum:
        GRADRING_OK
        GRADRING_INVALID_ARGUMENT
        GRADRING_OUT_OF_MEMORY
        GRADRING_INTERNAL
        GRADRING_CLOSED
        GRADRING_UNAVAILABLE
        GRADRING_PEER_DIED
        GRADRING_PEER_STALLED
        GRADRING_MISMATCH
        GRADRING_FLOAT32
        GRADRING_FLOAT64
        GRADRING_FLOAT16
        GRADRING_BFLOAT16
        GRADRING_INT32
        GRADRING_INT64
        GRADRING_SUM
        GRADRING_MEAN
        GRADRING_MAX
        GRADRING_MIN
        GRADRING_PROD

    const char* gradring_version() noexcept
    int gradring_abi_version() noexcept
    const char* gradring_last_error() noexcept

    ctypedef struct gradring_team:
        pass

    int gradring_team_create(int lanes, gradring_team** team) noexcept
    void gradring_team_destroy(gradring_team* team) noexcept
    int gradring_team_lanes(const gradring_team* team) noexcept
    int gradring_matmul_f32(gradring_team* team, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, int trans_a,
                            const float* b, int64_t ldb, int trans_b, float* c, int64_t ldc, int accumulate) noexcept
    int gradring_matmul_f64(gradring_team* team, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, int trans_a,
                            const double* b, int64_t ldb, int trans_b, double* c, int64_t ldc, int accumulate) noexcept

    ctypedef struct gradring_group:
        pass

    int gradring_group_create_threads(int size, double timeout, gradring_group** groups) noexcept
    int gradring_group_segment(int size, int* fd) noexcept
    int gradring_group_data_segment(int* fd) noexcept
    int gradring_group_join(int segment_fd, int rank, int size, uint64_t generation, const int* pidfds, const int* data_fds,
                            double timeout, gradring_group** group) noexcept
    void gradring_group_destroy(gradring_group* group) noexcept
    int gradring_group_rank(const gradring_group* group) noexcept
    int gradring_group_size(const gradring_group* group) noexcept
    int gradring_group_allocate(gradring_group* group, uint64_t bytes, void** memory) noexcept
    void gradring_group_free(gradring_group* group, void* memory) noexcept
    int gradring_all_reduce(gradring_group* group, const void* source, void* out, int64_t count, int dtype, int op) noexcept
    int gradring_barrier(gradring_group* group) noexcept

cdef extern from "gradring/row_transform.h" nogil:
    ctypedef int (*gradring_row_transform)(const void* source, int64_t from_bytes, void* to, int64_t to_bytes, int64_t sample,
                                           uint64_t random, void* user_data) noexcept
