"""Kind 6: results do not overlap operands in silence."""

import numpy as np
import pytest

import gradring as gr

F = np.float32


def memory(*shape):
    return np.random.default_rng(6).standard_normal(shape).astype(F)


def stacked():
    x = memory(4, 3, 3)
    gr.ops.matmul(x[:-1], memory(3, 3), out=x[1:])


def stacked_on_b():
    x = memory(3, 3, 3)
    gr.ops.matmul(memory(3, 3), x, out=x[::-1])


def vector_by_matrix():
    x = memory(6)
    gr.ops.matmul(x[:3], memory(3, 3), out=x[2:5])


def plain():
    x = memory(8, 4)
    gr.ops.matmul(x[:4], memory(4, 4), out=x[3:7])


def bias_is_pre():
    buffer = memory(6, 4)
    gr.ops.linear(memory(6, 3), memory(3, 4), buffer[3], activation="gelu", pre=buffer)


def bias_is_out():
    buffer = memory(6, 4)
    gr.ops.linear(memory(6, 3), memory(3, 4), buffer[3], out=buffer)


def out_is_pre():
    buffer = memory(7, 4)
    gr.ops.linear(memory(6, 3), memory(3, 4), activation="gelu", out=buffer[:6], pre=buffer[1:])


def stacked_linear():
    buffer = memory(3, 2, 4)
    gr.ops.linear(buffer[:2], memory(4, 4), out=buffer[1:])


def stacked_linear_bias():
    buffer = memory(3, 2, 4)
    gr.ops.linear(memory(3, 2, 4), memory(4, 4), buffer[1, 1], pre=buffer)


def stacked_linear_of_a_copy():
    # Flattening these rows copies them: what overlaps is refused all the same.
    buffer = memory(3, 2, 8)
    gr.ops.linear(buffer[:, ::-1, :4], memory(4, 8), out=buffer)


def gradients_on_each_other():
    buffer = memory(4, 4)
    gr.ops.linear_vjp(memory(4, 4), memory(4, 4), memory(4, 4), out=(buffer, buffer, None))


def bias_gradient_in_weight_gradient():
    buffer = memory(5, 4)
    gr.ops.linear_vjp(memory(6, 4), memory(6, 4), memory(4, 4), out=(None, buffer[:4], buffer[3]))


def stacked_gradient_on_x():
    x = memory(2, 3, 4)
    gr.ops.linear_vjp(memory(2, 3, 4), x, memory(4, 4), out=(x, None, None))


def momentum_is_the_gradient():
    grad = memory(5)
    gr.ops.sgd_update(memory(5), grad, grad, lr=0.1, momentum=0.9)


def moments_are_one():
    moments = np.zeros(8, F)
    gr.ops.adam_update(memory(5), memory(5), moments[:5], moments[3:], step=1, lr=0.1)


CASES = [value for name, value in list(globals().items()) if callable(value) and name not in ("memory", "F")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_an_overlap_is_refused_and_nothing_is_written(case):
    with pytest.raises(ValueError, match="shares memory with"):
        case()


AT = np.lib.stride_tricks.as_strided
# Shapes and strides, in elements, that reach one place twice.
REPEATED = {
    "a stride of zero": ((3, 3), (0, 1)),
    "rows that overlap": ((3, 3), (2, 1)),
    "windows": ((3, 3), (1, 1)),
    "backwards": ((3, 3), (-2, 1)),
    "columns that overlap": ((3, 3), (1, 2)),
}
CALLS = {
    "matmul": lambda x, out: gr.ops.matmul(x, x, out=out),
    "linear": lambda x, out: gr.ops.linear(x, x, out=out),
    "sgd_update": lambda x, out: gr.ops.sgd_update(out, x, lr=0.1),
    **{
        name: lambda x, out, name=name: getattr(gr.ops, name)(x, out=out)
        for name in ("relu", "sigmoid", "softmax", "log_softmax", "layer_norm", "rms_norm")
    },
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", REPEATED)
def test_a_result_with_several_elements_in_one_place_is_refused(case, call):
    shape, strides = REPEATED[case]
    memory_of = np.zeros(32, F)
    out = AT(memory_of[16:], shape, [4 * stride for stride in strides])
    with pytest.raises(ValueError, match="several elements in one place"):
        CALLS[call](memory(3, 3), out)
    assert not memory_of.any()


@pytest.mark.parametrize("call", CALLS)
def test_results_with_gaps_reversed_transposed_or_of_one_row_are_taken(call):
    x = memory(3, 3)
    want = np.zeros((3, 3), F)
    CALLS[call](x, want)
    buffer = np.zeros((7, 8), F)
    views = (buffer[::3, 1:7:2], buffer[::-3, ::-3], buffer[:3, :3].T, buffer[1:4, 2:5][::-1])
    for out in views:
        buffer[...] = 0
        CALLS[call](x, out)
        np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-7)
    row = AT(np.zeros(8, F), (1, 3), (0, 4))  # the stride of an axis with one element means nothing
    np.testing.assert_allclose(gr.ops.relu(x[:1], out=row), np.maximum(x[:1], 0))


def test_interleaved_views_that_share_no_element_are_taken():
    buffer = memory(6, 4)
    want = buffer[::2].copy() @ (b := memory(4, 4))
    got = gr.ops.matmul(buffer[::2], b, out=buffer[1::2])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    stack = memory(4, 3, 3)
    want = stack[::2].copy() @ (b := memory(3, 3))
    np.testing.assert_allclose(gr.ops.matmul(stack[::2], b, out=stack[1::2]), want, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (2, 1, 3, 4), (0, 3, 4)])
@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
def test_linear_vjp_takes_what_linear_takes(shape, activation):
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(shape), rng.standard_normal((4, 5))
    dy = rng.standard_normal((*shape[:-1], 5))
    pre = x @ w
    saved = {None: None, "relu": np.maximum(pre, 0), "gelu": pre}[activation]
    dx, dw, db = gr.ops.linear_vjp(dy, x, w, saved, activation=activation)
    g = dy if activation is None else getattr(gr.ops, f"{activation}_vjp")(dy, saved)
    np.testing.assert_allclose(dx, g @ w.T, rtol=1e-12)
    np.testing.assert_allclose(dw, x.reshape(-1, 4).T @ g.reshape(-1, 5), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(db, g.reshape(-1, 5).sum(0), rtol=1e-12, atol=1e-14)
    out = np.empty(shape), np.empty((4, 5)), np.empty(5)
    again = gr.ops.linear_vjp(dy, x, w, saved, activation=activation, out=out)
    assert all(a is b for a, b in zip(again, out, strict=True))
    np.testing.assert_array_equal(out[0], dx)
    none, dw2, _ = gr.ops.linear_vjp(dy, x, w, saved, activation=activation, need_dx=False)
    assert none is None
    np.testing.assert_array_equal(dw2, dw)
