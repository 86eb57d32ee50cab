"""An error names a sample by the number that it has in the user's own data, through any loader."""

import numpy as np
import pytest

import gradring as gr

N = 60
BAD = 41
RNG = np.random.default_rng(4)


def with_fault(fault):
    x, y, w = RNG.standard_normal((N, 5)).astype("f4"), RNG.integers(0, 3, N), np.ones(N, "f4")
    if fault == "nan":
        x[BAD, 2] = np.nan
    elif fault == "label":
        y[BAD] = 7
    elif fault == "soft":
        y = np.eye(3, dtype="f4")[y]
        y[BAD] = [0.5, -0.5, 1.0]
    elif fault == "binary":
        y = (y > 0).astype("f4").reshape(-1, 1)
        y[BAD] = 255
    else:
        w[BAD] = -2
    return x, y, w


def reversed_first(x, y, w):
    """Samples in an order of one's own, the bad one among them."""
    return gr.Loader((x, y, w), 8, indices=np.arange(N)[::-1], shuffle=True)


def part_with_it(parts):
    return next(part for part in parts if BAD in part.indices)


LOADERS = {
    "arrays": (lambda x, y, w: gr.Loader((x, y, w), 8, shuffle=True), "41"),
    "by name": (lambda x, y, w: gr.Loader({"weight": w, "y": y, "x": x}, 8, shuffle=True), "41"),
    "indices": (reversed_first, "41"),
    "split": (lambda x, y, w: part_with_it(gr.Loader((x, y, w), 8, shuffle=True).split(0.5)), "41"),
    "folds": (lambda x, y, w: part_with_it([b for _, b in gr.Loader((x, y, w), 8).folds(3)]), "41"),
    "part of a part": (
        lambda x, y, w: part_with_it(part_with_it(gr.Loader((x, y, w), 8).split(0.5)).split(0.4)),
        "41",
    ),
    "concat": (
        lambda x, y, w: gr.Loader(gr.sources.Concat([(x[:30], y[:30], w[:30]), (x[30:], y[30:], w[30:])]), 8),
        r"41 \(number 11 of part 1\)",
    ),
    "concat of concat": (
        lambda x, y, w: gr.Loader(
            gr.sources.Concat(
                [
                    (x[:9], y[:9], w[:9]),
                    gr.sources.Concat(
                        [
                            (a[9:40], b[9:40], c[9:40]) if i == 0 else (a[40:], b[40:], c[40:])
                            for i, (a, b, c) in enumerate([(x, y, w)] * 2)
                        ]
                    ),
                ]
            ),
            8,
            shuffle=True,
        ),
        r"41 \(number 1 of part 1 of part 1\)",
    ),
    "transforms": (lambda x, y, w: gr.Loader((x, y, w), 8, transforms={0: gr.transforms.Scale(2.0, 1.0)}), "41"),
    "function": (
        lambda x, y, w: gr.Loader(gr.sources.Callable(lambda i: (x[i], y[i], w[i]), N), 8, indices=range(5, N)),
        "41",
    ),
}
WORDS = {
    "nan": r"x of sample {} is nan in column 2",
    "label": r"\(sample {}\): label is 7, must be at least 0 and below 3",
    "soft": r"\(sample {}\): the target is no distribution",
    "binary": r"\(sample {}\): the target, \[255\.\], must be from 0 to 1",
    "weight": r"\(sample {}\): the weight is negative",
}
UNREAD = {  # where a function of the user's made the sample, which is not called a second time
    "nan": "loss of .* is not finite",
    "label": r"\(sample {}\): label is out of range",
    "soft": r"\(sample {}\): the target is no distribution",
    "binary": r"\(sample {}\): the target must be from 0 to 1",
    "weight": r"\(sample {}\): the weight is negative",
}


def trainer(fault):
    loss = "binary_cross_entropy" if fault == "binary" else "cross_entropy"
    return gr.Trainer(gr.nn.Linear(5, 1 if fault == "binary" else 3), loss=loss, seed=1)


@pytest.mark.parametrize("fault", WORDS)
@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_the_sample_has_the_users_number(method, kind, fault):
    make, number = LOADERS[kind]
    arrays = with_fault(fault)
    words = (UNREAD if kind == "function" else WORDS)[fault].format(number)
    if kind == "arrays" and fault == "weight":
        words = r"weight of sample 41 is -2"
    data = make(*arrays)
    with pytest.raises((ValueError, gr.NonFinite), match=words):
        getattr(trainer(fault), method)(data)


def test_every_rank_names_its_own_samples():
    x, y, _ = with_fault("nan")
    for rank in range(3):
        loader = gr.Loader({"x": x, "y": y}, 8, rank=rank, world_size=3, shuffle=True, seed=5)
        mine = {int(n) for n in loader.order()[rank::3]}
        if BAD not in mine:
            trainer("nan").fit(loader, verbose=False)
            continue
        with pytest.raises(gr.NonFinite, match="x of sample 41 is nan in column 2"):
            trainer("nan").fit(loader, verbose=False)


def test_batches_that_python_makes_have_no_numbers_of_samples():
    x, y, _ = with_fault("label")
    batches = [(x[i : i + 20], y[i : i + 20]) for i in range(0, N, 20)]
    for method in ("fit", "evaluate"):
        with pytest.raises(ValueError, match=r"batch 2, row 1 \(sample 1 of that batch\): label is 7"):
            getattr(trainer("label"), method)(batches)


def test_a_source_that_fails_is_named_in_its_part():
    def fail(i):
        if i == 3:
            raise KeyError("lost")
        return np.zeros(2)

    parts = gr.sources.Concat([gr.sources.Callable(lambda i: np.zeros(2), 5), gr.sources.Callable(fail, 6)])
    with pytest.raises(KeyError) as caught:
        list(gr.Loader(parts, 4, num_threads=0))
    assert caught.value.sample_index == 8
    assert any(
        "sample 8 (number 3 of part 1)" in note
        for note in getattr(caught.value, "__notes__", ["sample 8 (number 3 of part 1)"])
    )


def test_concat_of_concat_of_functions():
    def numbers(first, count):
        return gr.sources.Callable(lambda i: np.array([first + i]), count)

    inner = gr.sources.Concat([numbers(10, 2), numbers(20, 3)])
    both = gr.sources.Concat([numbers(0, 2), inner, gr.sources.Concat([gr.sources.Concat([numbers(30, 1)])])])
    assert np.concatenate(list(gr.Loader(both, 4))).ravel().tolist() == [0, 1, 10, 11, 20, 21, 22, 30]
    with pytest.raises(TypeError, match=r"\[Concat\] part 1 is a ndarray, but others are Python functions"):
        gr.Loader(gr.sources.Concat([inner, np.arange(3)]), 4)
    mixed = gr.sources.Concat([numbers(0, 2), gr.sources.Concat([np.arange(3)])])
    with pytest.raises(TypeError, match=r"\[Concat\] part 1 is a Concat, but others are Python functions"):
        gr.Loader(mixed, 4)


def test_predictions_name_the_sample_too():
    ids = np.zeros((N, 2), np.int64)
    ids[BAD, 1] = 99
    made = gr.Trainer(gr.nn.Sequential(gr.nn.Embedding(10, 3), gr.nn.Flatten(), gr.nn.Linear(6, 3)), seed=1)
    parts = gr.sources.Concat([ids[:30], ids[30:]])
    part = part_with_it(gr.Loader(ids, 8).split(0.5))
    ranked = gr.Loader(ids, 8, rank=BAD % 3, world_size=3)
    cases = [
        (ids, "41"),
        (part, "41"),
        (gr.Loader(ids, 8, indices=np.arange(N)[::-1]), "41"),
        (gr.Loader(parts, 8), r"41 \(number 11 of part 1\)"),
        (ranked, "41"),
        (iter([ids[:40], ids[40:]]), "1 of batch 1"),
    ]
    for data, number in cases:
        with pytest.raises(ValueError, match=rf"sample {number}: the id at place \(1,\) is 99"):
            made.predict(data, batch_size=16)
