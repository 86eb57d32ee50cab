"""Print the errors of float32 products, relative to |a||b|, by multiply-adds and by pieces.

python scripts/measure_products.py
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import gradring as gr

Array = NDArray[np.float32]
ROWS, COLUMNS = 64, 70
STEPS = (64, 512, 4096)
DRAWS = 5
RNG = np.random.default_rng(0)


def normal(steps: int) -> tuple[Array, Array]:
    """Random numbers of either sign."""
    return RNG.standard_normal((ROWS, steps), np.float32), RNG.standard_normal((steps, COLUMNS), np.float32)


def positive(steps: int) -> tuple[Array, Array]:
    """Terms of one sign."""
    a, b = normal(steps)
    return np.abs(a), np.abs(b)


def cancelling(steps: int) -> tuple[Array, Array]:
    """Neighbouring terms that differ by 1e-6."""
    a, b = normal(steps)
    a[:, 1::2] = a[:, ::2]
    b[1::2] = -b[::2] * np.float32(1 + 1e-6)
    return a, b


def any_size(steps: int) -> tuple[Array, Array]:
    """Numbers from 2**-60 to 2**40."""
    a, b = (np.ldexp(x, RNG.integers(-60, 40, x.shape)).astype(np.float32) for x in normal(steps))
    return a, b


def shrinking(steps: int) -> tuple[Array, Array]:
    """Columns of a that shrink by 2**40 in all."""
    a, b = growing(steps)
    return np.ascontiguousarray(a[:, ::-1]), b


def growing(steps: int) -> tuple[Array, Array]:
    """Columns of a that grow by 2**40 in all."""
    a, b = normal(steps)
    return a * np.exp2(np.linspace(-20, 20, steps)).astype(np.float32), b


def sparse(steps: int) -> tuple[Array, Array]:
    """Two numbers in each row of a."""
    a, b = normal(steps)
    kept = np.zeros_like(a)
    for row in kept:
        row[RNG.choice(steps, 2, replace=False)] = 1
    return a * kept, b


def one_large(steps: int) -> tuple[Array, Array]:
    """A last column of a that is 10,000 times as large as the others."""
    a, b = normal(steps)
    a[:, -1] *= 1e4
    return a, b


def worst_rests(steps: int) -> tuple[Array, Array]:
    """Numbers of which pieces leave out as much as of any, all of one sign."""
    a, b = ((x.view(np.uint32) & np.uint32(0x7F800000) | np.uint32(0x7FC0)).view(np.float32) for x in normal(steps))
    return a, b


def errors(a: Array, b: Array, products: gr.choices.Products) -> NDArray[np.float64]:
    """The error of each element, relative to the sum of its terms' magnitudes."""
    got = gr.ops.matmul(a, b, products=products).astype(np.float64)
    exact, size = a.astype(np.float64) @ b, np.abs(a).astype(np.float64) @ np.abs(b)
    return np.abs(got - exact) / np.where(size > 0, size, 1)


def main() -> None:
    """Print the table: the largest errors, and the root of the mean square of those of pieces3 divided by that of fma."""
    print("| operands | k | fma | pieces3 | pieces2 | pieces3 / fma |\n|---|---|---|---|---|---|")
    for family in (normal, positive, cancelling, any_size, shrinking, growing, sparse, one_large, worst_rests):
        name = (family.__doc__ or "").rstrip(".").lower()
        for steps in STEPS:
            draws = [family(steps) for _ in range(DRAWS)]
            found = [np.stack([errors(a, b, products) for a, b in draws]) for products in ("fma", "pieces3", "pieces2")]
            fma, pieces3, _ = (float(np.sqrt(np.mean(one**2))) for one in found)
            print(
                f"| {name} | {steps} | " + " | ".join(f"{one.max():.1e}" for one in found) + f" | {pieces3 / fma:.2f} |"
            )


if __name__ == "__main__":
    main()
