# cython: language_level=3, boundscheck=False
from libc.stdint cimport int64_t, uint64_t


cdef api int brightness(const void* source, int64_t source_bytes, void* target, int64_t target_bytes, int64_t sample,
                        uint64_t random, void* user_data) noexcept nogil:
    cdef const float* x = <const float*>source
    cdef float* y = <float*>target
    cdef float factor = <float>0.8 + <float>0.4 * (<float>(random >> 40) * <float>5.9604644775390625e-08)
    cdef int64_t i
    for i in range(target_bytes // 4):
        y[i] = x[i] * factor
    return 0
