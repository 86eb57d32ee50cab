# cython: language_level=3, boundscheck=False, wraparound=False
"""x'x / (n - 1) of centred columns, with a team of threads that lives as long as the module."""
import numpy as np

from gradring.capi cimport (
    GRADRING_OK, gradring_last_error, gradring_matmul_f64, gradring_team, gradring_team_create
)

cdef gradring_team* team = NULL
if gradring_team_create(0, &team) != GRADRING_OK:
    raise RuntimeError(gradring_last_error().decode())


def covariance(values):
    """The covariance of the columns of an (n, d) array: (d, d), float64."""
    centred = np.ascontiguousarray(values, np.float64)
    if centred.ndim != 2 or len(centred) < 2:
        raise ValueError(f"[covariance] values is {np.shape(values)}: must be (at least 2, d)")
    centred = centred - centred.mean(axis=0)
    result = np.empty((centred.shape[1], centred.shape[1]))
    cdef double[:, ::1] x = centred
    cdef double[:, ::1] out = result
    cdef int code
    if x.shape[1] == 0:
        return result
    with nogil:
        code = gradring_matmul_f64(team, x.shape[1], x.shape[1], x.shape[0], &x[0, 0], x.shape[1], 1, &x[0, 0],
                                   x.shape[1], 0, &out[0, 0], x.shape[1], 0)
    if code != GRADRING_OK:
        raise RuntimeError(gradring_last_error().decode())
    result /= len(centred) - 1
    return result
