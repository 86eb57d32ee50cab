"""Kind 11: check_grad raises no false alarm, and passes nothing false."""

import numpy as np
import pytest

import gradring as gr
from gradring.gradient_check import GradientMismatch

RNG = np.random.default_rng(11)


def numbers(*shape):
    return RNG.standard_normal(shape)


MATMULS = [
    ((3, 4), (4, 5), {}),
    ((4,), (4, 5), {}),
    ((3, 4), (4,), {}),
    ((4,), (4,), {}),
    ((2, 3, 4), (4, 5), {}),
    ((3, 4), (2, 4, 5), {}),
    ((2, 1, 3, 4), (5, 4, 2), {}),
    ((1, 3, 4), (2, 4, 5), {}),
    ((4,), (2, 4, 5), {}),
    ((2, 3, 4), (4,), {}),
    ((4, 3), (4, 5), {"trans_a": True}),
    ((2, 4, 3), (5, 4), {"trans_a": True, "trans_b": True}),
    ((4,), (2, 5, 4), {"trans_a": True, "trans_b": True}),
    ((3, 1, 2, 4), (1, 2, 5, 4), {"trans_b": True}),
]


@pytest.mark.parametrize(("a", "b", "options"), MATMULS, ids=str)
def test_matmul_of_any_shapes(a, b, options):
    assert gr.check_grad(gr.ops.matmul, numbers(*a), numbers(*b), **options) < 1e-6


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 1, 3, 4)])
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "silu", "tanh", "sigmoid"])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_of_any_number_of_axes(shape, activation, bias):
    arrays = [numbers(*shape) + 0.1, numbers(4, 5)] + [numbers(5)] * bias
    assert gr.check_grad(gr.ops.linear, *arrays, activation=activation) < 1e-6


def product(a, b):
    return a * b


@pytest.mark.parametrize(
    ("vjp", "words"),
    [
        (lambda dy, a, b: (dy * b,), "gives 1 gradients for 2 arguments"),
        (lambda dy, a, b: dy * b, "gives 1 gradients for 2 arguments"),
        (lambda dy, a, b: (dy * b, None), "by argument 1 at"),
        (lambda dy, a, b: (None, dy * a), "by argument 0 at"),
        (lambda dy, a, b: None, "gives 1 gradients for 2 arguments"),
        (lambda dy, a, b: (None, None), "by argument"),
        (lambda dy, a, b: (), "gives 0 gradients"),
        (lambda dy, a, b: (dy * b, dy * a, dy), "gives 3 gradients"),
        (lambda dy, a, b: (dy * b, dy), "by argument 1 at"),
        (lambda dy, a, b: (dy * b, (dy * a)[:1]), r"by argument 1 is \(1, 3\): must be \(2, 3\)"),
    ],
)
def test_a_vjp_that_leaves_something_out_fails(vjp, words):
    with pytest.raises(GradientMismatch, match=words):
        gr.check_grad(product, numbers(2, 3), numbers(2, 3), vjp=vjp)


def test_one_argument():
    assert gr.check_grad(np.square, numbers(3), vjp=lambda dy, x: 2 * x * dy) < 1e-6
    for wrong in (lambda dy, x: None, lambda dy, x: (None,)):
        with pytest.raises(GradientMismatch, match="by argument 0 at"):
            gr.check_grad(np.square, numbers(3), vjp=wrong)


def test_what_the_function_does_not_depend_on_may_have_none():
    def first(a, b):
        return a * 3.0

    assert gr.check_grad(first, numbers(3), numbers(3), vjp=lambda dy, a, b: (3.0 * dy, None)) < 1e-6
    assert gr.check_grad(first, numbers(3), np.arange(3), vjp=lambda dy, a, b: [3.0 * dy, None]) < 1e-6


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "sample"])
def test_losses(loss, reduction):
    function = getattr(gr.ops, loss)
    assert gr.check_grad(function, numbers(5, 3), RNG.random((5, 3)), reduction=reduction) < 1e-6
    labels = RNG.integers(0, 3, 5)
    assert gr.check_grad(gr.ops.softmax_cross_entropy, numbers(5, 3), labels, reduction=reduction) < 1e-6


def test_sums_are_numpys():
    p, t = numbers(5, 3), RNG.random((5, 3))
    assert gr.ops.mse(p, t, reduction="sum") == pytest.approx(((p - t) ** 2).sum())
    labels = RNG.integers(0, 3, 5)
    each = gr.ops.softmax_cross_entropy(p, labels)
    assert gr.ops.softmax_cross_entropy(p, labels, reduction="sum") == pytest.approx(each.sum())
