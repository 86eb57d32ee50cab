"""Products of float32 matrices from bfloat16 pieces: the choice, its errors, its bits, and what pieces cannot hold."""

import threading
import warnings

import ml_dtypes
import numpy as np
import pytest

import gradring as gr
from gradring import _core, float32_products
from helpers import run_script


@pytest.fixture(autouse=True)
def _quiet_and_back(monkeypatch):
    monkeypatch.setattr(float32_products, "_warned", {"pieces3", "pieces2"})
    before = gr.get_float32_products()
    yield
    gr.set_float32_products(before)


def random(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def worst(c, a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.max(np.abs(c - a @ b) / (np.abs(a) @ np.abs(b)))


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_every_way_is_within_its_error(trans_a, trans_b):
    rng = np.random.default_rng(1)
    a, b = random(rng, 150, 333), random(rng, 333, 97)
    given = (a.T.copy() if trans_a else a, b.T.copy() if trans_b else b)
    results = {
        way: gr.ops.matmul(*given, trans_a=trans_a, trans_b=trans_b, products=way)
        for way in ("fma", "pieces3", "pieces2")
    }
    errors = {way: worst(c, a, b) for way, c in results.items()}
    assert errors["pieces3"] <= errors["fma"] < 5e-7
    assert errors["pieces3"] < errors["pieces2"] < 2**-15  # the choice has an effect
    assert np.array_equal(results["fma"], gr.ops.matmul(*given, trans_a=trans_a, trans_b=trans_b))


def test_the_processs_choice_holds_where_a_call_makes_none():
    rng = np.random.default_rng(2)
    a, b = random(rng, 64, 128), random(rng, 128, 64)
    by_fma, by_pieces = gr.ops.matmul(a, b), gr.ops.matmul(a, b, products="pieces3")
    assert not np.array_equal(by_fma, by_pieces)
    gr.set_float32_products("pieces3")
    assert gr.get_float32_products() == "pieces3"
    for _ in range(3):  # a repeated call, too
        assert np.array_equal(gr.ops.matmul(a, b), by_pieces)
        assert np.array_equal(gr.ops.matmul(a, b, products="fma"), by_fma)
    gr.set_float32_products("fma")
    for _ in range(3):
        assert np.array_equal(gr.ops.matmul(a, b), by_fma)


@pytest.mark.parametrize("bad", ["pieces4", "FMA", ""])
def test_other_words_are_refused(bad):
    a = np.ones((64, 64), np.float32)
    with pytest.raises(ValueError, match=r"\[set_float32_products\] products must be 'fma', 'pieces3' or 'pieces2'"):
        gr.set_float32_products(bad)
    with pytest.raises(ValueError, match=r"\[matmul\] products is .*: must be 'fma', 'pieces3' or 'pieces2'"):
        gr.ops.matmul(a, a, products=bad)
    with pytest.raises(ValueError, match=r"\[Trainer\] products must be 'fma', 'pieces3' or 'pieces2'"):
        gr.Trainer(gr.nn.Linear(4, 2), products=bad)


@pytest.mark.parametrize("bad", [3, True, ["fma"], b"fma"])
def test_what_is_no_word_is_refused(bad):
    a = np.ones((64, 64), np.float32)
    with pytest.raises(TypeError, match="products must be"):
        gr.set_float32_products(bad)
    with pytest.raises(TypeError, match="products is a"):
        gr.ops.matmul(a, a, products=bad)


def test_the_same_bits_for_threads_levels_and_the_emulation():
    rng = np.random.default_rng(3)
    a, b = random(rng, 200, 300), random(rng, 300, 130)
    expected = gr.ops.matmul(a, b, products="pieces3")
    before = gr.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            gr.set_num_threads(threads)
            assert np.array_equal(gr.ops.matmul(a, b, products="pieces3"), expected)
    finally:
        gr.set_num_threads(before)
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np, gradring as gr\n"
        "rng = np.random.default_rng(3)\n"
        "a, b = (rng.standard_normal(s).astype(np.float32) for s in ((200, 300), (300, 130)))\n"
        "print(gr.ops.matmul(a, b, products='pieces3').tobytes().hex())"
    )
    for level in ("base", "avx2", "avx512", "amx"):
        done = run_script(code, GRADRING_ISA=level)
        assert bytes.fromhex(done.stdout.strip()) == expected.tobytes(), done.stderr


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-39, -1e-45, 1e-33, 0.0])
def test_special_values_give_what_multiply_adds_give(value):
    rng = np.random.default_rng(4)
    for side in (0, 1):
        a, b = random(rng, 96, 100), random(rng, 100, 96)
        for place in rng.integers(0, 96, (5, 2)):
            (a, b)[side][tuple(place)] = value
        with np.errstate(all="ignore"):
            expected, got = gr.ops.matmul(a, b), gr.ops.matmul(a, b, products="pieces3")
            size = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
        finite = np.isfinite(expected)
        assert np.array_equal(np.isnan(expected), np.isnan(got))
        assert np.array_equal(expected[~finite & ~np.isnan(expected)], got[~finite & ~np.isnan(got)])
        assert np.all(np.abs(expected[finite].astype(np.float64) - got[finite]) <= 1e-6 * size[finite])


def test_operands_of_tiny_numbers_are_not_flushed():
    rng = np.random.default_rng(5)
    a, b = random(rng, 64, 70) * np.float32(1e-41), random(rng, 70, 64)
    assert np.array_equal(gr.ops.matmul(a, b, products="pieces3"), gr.ops.matmul(a, b))
    a, b = random(rng, 64, 70) * np.float32(1e-22), random(rng, 70, 64) * np.float32(1e-22)
    assert np.any(gr.ops.matmul(a, b, products="pieces3") != 0)


def test_strided_unaligned_empty_and_overlapping_arrays():
    rng = np.random.default_rng(6)
    wide, tall = random(rng, 140, 300), random(rng, 300, 160)
    a, b = wide[::2, ::3], tall[::3, ::-1]
    expected = gr.ops.matmul(a.copy(), b.copy(), products="pieces3")
    assert np.array_equal(gr.ops.matmul(a, b, products="pieces3"), expected)
    raw = np.empty(a.size * 4 + 1, np.uint8)
    shifted = raw[1:].view(np.float32).reshape(a.shape)
    shifted[...] = a
    assert np.array_equal(gr.ops.matmul(shifted, b, products="pieces3"), expected)
    out = np.empty((a.shape[0], b.shape[1] + 5), np.float32)[:, 2:-3]
    assert gr.ops.matmul(a, b, out=out, products="pieces3") is out and np.array_equal(out, expected)
    assert gr.ops.matmul(np.empty((0, 64), np.float32), np.empty((64, 64), np.float32), products="pieces3").shape == (
        0,
        64,
    )
    assert not gr.ops.matmul(np.empty((64, 0), np.float32), np.empty((0, 64), np.float32), products="pieces3").any()
    square = random(rng, 64, 64)
    with pytest.raises(ValueError, match="shares memory"):
        gr.ops.matmul(square, square, out=square, products="pieces3")
    assert np.array_equal(
        gr.ops.matmul(square, square, products="pieces3"), gr.ops.matmul(square, square.copy(), products="pieces3")
    )


def test_other_dtypes_and_small_products_are_computed_as_always():
    rng = np.random.default_rng(7)
    for dtype in (np.float64, ml_dtypes.bfloat16):
        a, b = random(rng, 64, 64).astype(dtype), random(rng, 64, 64).astype(dtype)
        assert np.array_equal(gr.ops.matmul(a, b, products="pieces2"), gr.ops.matmul(a, b))
    a, b = random(rng, 3, 64), random(rng, 64, 64)
    assert np.array_equal(gr.ops.matmul(a, b, products="pieces2"), gr.ops.matmul(a, b))
    with pytest.raises(TypeError, match="float64"):
        gr.ops.matmul(random(rng, 64, 64).astype(ml_dtypes.bfloat16), np.ones((64, 64)), products="pieces3")


def test_stacks_and_layers_take_the_choice():
    rng = np.random.default_rng(8)
    a, b = random(rng, 2, 64, 80), random(rng, 80, 64)
    stacked = gr.ops.matmul(a, b, products="pieces2")
    assert np.array_equal(stacked[1], gr.ops.matmul(a[1], b, products="pieces2"))
    x, w, bias = random(rng, 70, 128), random(rng, 128, 96), random(rng, 96)
    y = gr.ops.linear(x, w, bias, activation="tanh", products="pieces3")
    expected = np.tanh(x.astype(np.float64) @ w + bias)
    assert np.max(np.abs(y - expected)) < 1e-5 and not np.array_equal(y, gr.ops.linear(x, w, bias, activation="tanh"))
    dy = random(rng, 70, 96)
    plain = gr.ops.linear_vjp(dy, x, w, y, activation="tanh")
    pieces = gr.ops.linear_vjp(dy, x, w, y, activation="tanh", products="pieces3")
    for one, other in zip(plain, pieces, strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(plain[0], pieces[0]) and not np.array_equal(plain[1], pieces[1])


def test_where_it_is_slower_it_works_and_says_so_once():
    code = (
        "import warnings, numpy as np, gradring as gr\n"
        "a = np.ones((64, 64), np.float32)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    gr.set_float32_products('pieces3')\n"
        "    gr.set_float32_products('pieces3')\n"
        "    gr.ops.matmul(a, a, products='pieces3')\n"
        "    gr.ops.matmul(a, a, products='pieces2')\n"
        "    gr.Trainer(gr.nn.Linear(4, 2), products='pieces2')\n"
        "assert (gr.ops.matmul(a, a) == 64).all()\n"
        "print(*[f'{w.category.__name__}: {w.message} in {w.filename}' for w in caught], sep='\\n')"
    )
    done = run_script(code, GRADRING_ISA="avx2")
    first, second = done.stdout.strip().splitlines()
    assert first.startswith("RuntimeWarning: products='pieces3' is slower than 'fma' on this machine"), done.stderr
    assert "products='pieces2'" in second and "gradring doctor" in second
    assert all(line.endswith(" in <string>") for line in (first, second)), "the warning does not name the user's line"
    if _core.tile_unit() == "permitted" and _core.tile_unit_advantage() > 8:
        assert run_script(code).stdout.strip() == ""


def test_threads_from_before_the_permission_use_the_unit():
    code = (
        "import threading, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "go, results = threading.Event(), []\n"
        "def work():\n"
        "    go.wait()\n"
        "    import numpy as np, gradring as gr\n"
        "    a = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) % 7\n"
        "    results.append(float(gr.ops.matmul(a, a.T, products='pieces3').sum()))\n"
        "early = [threading.Thread(target=work) for _ in range(4)]\n"
        "for thread in early: thread.start()\n"
        "from gradring import _core\n"
        "_core.tile_unit()\n"
        "go.set()\n"
        "for thread in early: thread.join()\n"
        "print(*results)"
    )
    done = run_script(code)
    a = np.arange(64 * 64, dtype=np.float64).reshape(64, 64) % 7
    assert done.stdout.split() == [str(float((a @ a.T).sum()))] * 4, done.stderr


def test_many_threads_multiply_at_once():
    rng = np.random.default_rng(9)
    a, b = random(rng, 130, 140), random(rng, 140, 150)
    expected = gr.ops.matmul(a, b, products="pieces3")
    wrong = []

    def work():
        for _ in range(30):
            if not np.array_equal(gr.ops.matmul(a, b, products="pieces3"), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_fma_never_warns(recwarn):
    warnings.simplefilter("always")
    gr.set_float32_products("fma")
    gr.ops.matmul(np.ones((64, 64), np.float32), np.ones((64, 64), np.float32), products="fma")
    assert not recwarn.list
