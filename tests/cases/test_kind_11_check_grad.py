"""Kind 11: check_grad raises no false alarm, and passes nothing false."""

import functools

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


def sine_but(wrong):
    """The vjp of sine, with one wrong gradient among thousands."""

    def vjp(dy, x):
        gradient = dy * np.cos(x)
        gradient[17, 5] *= wrong
        return gradient

    return vjp


@pytest.mark.parametrize("wrong", [0.0, -1.0, 1.001, np.nan])
def test_one_wrong_gradient_among_thousands_is_found(wrong):
    x = np.random.default_rng(3).normal(size=(100, 300))
    with pytest.raises(gr.errors.GradientMismatch, match=r"at \[17, 5\]"):
        gr.check_grad(np.sin, x, vjp=sine_but(wrong))
    assert gr.check_grad(np.sin, x, vjp=sine_but(1.0)) < 1e-6


def test_one_wrong_gradient_of_a_large_layer_is_found():
    layer = gr.nn.Function(np.sin, lambda dy, x, y: np.where(np.arange(x.shape[1]) == 977, 0, dy * np.cos(x)))
    with pytest.raises(gr.errors.GradientMismatch, match=r"the gradient by the input at \[\d, 977\]"):
        gr.check_grad(layer, np.random.default_rng(4).normal(size=(4, 1000)))


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_the_gradients_of_a_mean_over_a_million_elements_are_not_too_small_to_check(factor):
    x = np.random.default_rng(5).normal(size=(1000, 1000))
    with pytest.raises(gr.errors.GradientMismatch):
        gr.check_grad(lambda x: np.square(x).mean(), x, vjp=lambda dy, x: factor * dy * x / x.size, max_elements=9)
    gr.check_grad(lambda x: np.square(x).mean(), x, vjp=lambda dy, x: 2 * dy * x / x.size, max_elements=9)


KINKS = np.array([[0.0, 1.0, -2.0, 1e-9, -1e-9, 3e-6, -3e-6, 9.9e-6]])


def test_any_slope_between_those_of_both_sides_is_right_at_a_kink():
    assert gr.check_grad(gr.ops.relu, KINKS) < 1e-6
    assert gr.check_grad(gr.ops.relu, np.zeros((50, 60))) < 1e-6
    assert gr.check_grad(gr.ops.relu, np.random.default_rng(6).normal(size=(300, 300)), max_elements=9) < 1e-6
    equal = np.random.default_rng(7).normal(size=(4, 5))
    for loss in (gr.ops.mae, gr.ops.huber):
        assert gr.check_grad(loss, equal, equal.copy(), reduction="mean") < 1e-6


@pytest.mark.parametrize("slope", [1.5, -1.5])
def test_a_slope_of_neither_side_is_wrong_at_a_kink(slope):
    with pytest.raises(gr.errors.GradientMismatch):
        gr.check_grad(np.abs, np.array([[0.0]]), vjp=lambda dy, x: slope * dy)
    with pytest.raises(gr.errors.GradientMismatch):
        gr.check_grad(np.abs, np.array([[3e-6]]), vjp=lambda dy, x: -dy)


def test_options_may_come_with_the_operation():
    x = np.random.default_rng(8).normal(size=(3, 4))
    for form in ("tanh", "none"):
        assert gr.check_grad(functools.partial(gr.ops.gelu, approximate=form), x) < 1e-6
    with pytest.raises(ValueError, match=r"options go to check_grad itself, check_grad\(gr.ops.gelu, x, approximate='none'\)"):
        gr.check_grad(lambda x: gr.ops.gelu(x), x)
