/* A native transform for gr.transforms.Native: what a compiled function must look like.
 *
 * It takes one row of a field, as the transforms before it left it, and writes the row of the dtype and shape that were
 * given to Native. Both are C-contiguous; `to` is not initialized and does not overlap `from`. It runs without the
 * Python GIL, on many threads at the same time. `sample` is the sample's number in the source, and `random` 64 random bits
 * of (seed, epoch, sample, place): derive all randomness from them, and every run gives the same stream.
 * Returns 0; any other number ends the epoch (or skips the sample, if the loader was told so) and stands in the error.
 */
#ifndef GRADRING_ROW_TRANSFORM_H
#define GRADRING_ROW_TRANSFORM_H

#include <stdint.h>

/* The name that a PyCapsule with such a function must have. */
#define GRADRING_ROW_TRANSFORM_SIGNATURE "int (const void *, int64_t, void *, int64_t, int64_t, uint64_t, void *)"

#ifdef __cplusplus
extern "C" {
#endif

typedef int (*gradring_row_transform)(const void* from, int64_t from_bytes, void* to, int64_t to_bytes, int64_t sample,
                                      uint64_t random, void* user_data);

#ifdef __cplusplus
}
#endif

#endif
