"""A wrong type is a TypeError and a wrong value a ValueError, for every argument of every public constructor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradring as gr
from gradring import callbacks, losses, metrics, nn, optim, sources, transforms
from gradring.optim import schedule

# For each kind of argument: values of a wrong type, and wrong values of a right type.
NOTHING = object()
INT = ([NOTHING, None, True, 1.5, "3", [1]], [-1])
POSITIVE = (INT[0], [0, -1])
INT_OR_WORD = ([NOTHING, None, True, 1.5, [1]], [-1, "three"])
INT_OR_NONE = ([NOTHING, True, 1.5, "3", [1]], [-1])
REAL = ([NOTHING, None, True, "0.5", [1, 2]], [float("nan"), float("inf"), 10**400, 10**5000])
AT_LEAST_0 = (REAL[0], [*REAL[1], -0.5])
POSITIVE_OR_NONE = ([NOTHING, True, "0.5", [1, 2]], [float("nan"), -0.5, 0])
BYTES = (POSITIVE_OR_NONE[0], [float("nan"), float("inf"), 0])
FLAG = ([NOTHING, None, 1, "no", [True]], [])
WORD = ([NOTHING, None, True, 3, ["auto"]], ["something else"])
DTYPE = ([NOTHING, [1], "no dtype"], [])
PATH = ([NOTHING, None, 1.5, ["x"]], [])
SIZE = ([NOTHING, None, True, 1.5, "3", (1.5, 2)], [0, (1, 2, 3), (0, 1)])
EXTENTS = ([NOTHING, True, 1.5, "3", (1.5, 2)], [-1, (2, -1)])
NUMBERS = ([NOTHING, None, "a", {"a": 1}], [[], [float("nan")]])
FUNCTION = ([NOTHING, 1, "f"], [])
TESTED_ELSEWHERE = ([], [])  # objects that have tests of their own


def identity(*given: Any) -> Any:
    return given[0]


def table(**arguments: Any) -> dict[str, Any]:
    return arguments


X = np.zeros((4, 3), np.float32)
FRACTION = (REAL[0], [-0.5, 1.5, float("nan")])
BETAS = ([NOTHING, 0.9, (0.9,), ("a", 0.9)], [(0.9, 1.0)])
RATE = (AT_LEAST_0[0], AT_LEAST_0[1])
# Every constructor: good values of the arguments that it needs, and the kinds of all its arguments.
CONSTRUCTORS: dict[Any, tuple[dict[str, Any], dict[str, Any]]] = {
    gr.Loader: (
        table(source=X, batch_size=2),
        table(
            source=TESTED_ELSEWHERE,
            batch_size=POSITIVE,
            shuffle=FLAG,
            seed=INT,
            drop_last=FLAG,
            transforms=TESTED_ELSEWHERE,
            num_threads=INT_OR_WORD,
            prefetch=INT_OR_WORD,
            memory_budget=BYTES,
            device=TESTED_ELSEWHERE,
            rank=TESTED_ELSEWHERE,
            world_size=TESTED_ELSEWHERE,
            timeout=POSITIVE_OR_NONE,
            pad=FLAG,
            on_error=WORD,
            restart=INT,
            indices=TESTED_ELSEWHERE,
            global_batch=TESTED_ELSEWHERE,
        ),
    ),
    nn.BatchNorm1d: (table(features=3), table(features=POSITIVE, eps=AT_LEAST_0, momentum=REAL, affine=FLAG)),
    nn.Dropout: (table(p=0.5), table(p=(REAL[0], [-0.5, 1.5, float("nan")]))),
    nn.Embedding: (table(count=3, features=2), table(count=POSITIVE, features=POSITIVE)),
    nn.Flatten: ({}, {}),
    nn.Function: (
        table(forward=identity, vjp=identity),
        table(forward=FUNCTION, vjp=FUNCTION, shape=TESTED_ELSEWHERE, name=TESTED_ELSEWHERE),
    ),
    nn.GELU: ({}, table(approximate=WORD)),
    nn.LayerNorm: (table(features=3), table(features=POSITIVE, eps=AT_LEAST_0, bias=FLAG)),
    nn.Linear: (table(inputs=3, outputs=2), table(inputs=POSITIVE, outputs=POSITIVE, bias=FLAG)),
    nn.RMSNorm: (table(features=3), table(features=POSITIVE, eps=AT_LEAST_0)),
    nn.ReLU: ({}, {}),
    nn.Residual: ({}, {}),
    nn.Sequential: ({}, {}),
    nn.SiLU: ({}, {}),
    nn.Sigmoid: ({}, {}),
    nn.Tanh: ({}, {}),
    losses.MSE: ({}, {}),
    losses.BinaryCrossEntropy: ({}, table(pos_weight=TESTED_ELSEWHERE)),
    losses.CrossEntropy: ({}, table(weight=TESTED_ELSEWHERE, label_smoothing=(REAL[0], [-0.5, 1.5, float("nan")]))),
    metrics.MAE: ({}, {}),
    metrics.R2: ({}, {}),
    metrics.Accuracy: ({}, {}),
    metrics.TopK: ({}, table(k=POSITIVE)),
    optim.SGD: (
        table(lr=0.1),
        table(lr=RATE, momentum=FRACTION, nesterov=FLAG, weight_decay=AT_LEAST_0, groups=TESTED_ELSEWHERE),
    ),
    optim.Adam: (
        {},
        table(lr=RATE, betas=BETAS, eps=AT_LEAST_0, amsgrad=FLAG, weight_decay=AT_LEAST_0, groups=TESTED_ELSEWHERE),
    ),
    optim.AdamW: (
        {},
        table(lr=RATE, betas=BETAS, eps=AT_LEAST_0, amsgrad=FLAG, weight_decay=AT_LEAST_0, groups=TESTED_ELSEWHERE),
    ),
    optim.Lion: ({}, table(lr=RATE, betas=BETAS, weight_decay=AT_LEAST_0, groups=TESTED_ELSEWHERE)),
    optim.RMSprop: (
        {},
        table(
            lr=RATE,
            alpha=FRACTION,
            eps=AT_LEAST_0,
            weight_decay=AT_LEAST_0,
            momentum=AT_LEAST_0,
            centered=FLAG,
            groups=TESTED_ELSEWHERE,
        ),
    ),
    schedule.constant: (table(rate=0.1), table(rate=AT_LEAST_0)),
    schedule.cosine: (table(start=0.1, steps=5), table(start=AT_LEAST_0, steps=POSITIVE, end=AT_LEAST_0)),
    schedule.join: (
        table(schedules=[0.1], starts=[]),
        table(schedules=TESTED_ELSEWHERE, starts=TESTED_ELSEWHERE),
    ),
    schedule.linear: (table(start=0.1, end=0.0, steps=5), table(start=AT_LEAST_0, end=AT_LEAST_0, steps=POSITIVE)),
    schedule.one_cycle: (
        table(peak=0.1, steps=50),
        table(peak=AT_LEAST_0, steps=POSITIVE, pct_start=REAL, div_factor=REAL, final_div_factor=REAL),
    ),
    schedule.plateau: (
        table(then=0.1),
        table(
            then=AT_LEAST_0,
            monitor=([NOTHING, None, 3], []),
            factor=REAL,
            patience=INT,
            threshold=AT_LEAST_0,
            cooldown=INT,
            least=AT_LEAST_0,
            mode=WORD,
        ),
    ),
    schedule.polynomial: (
        table(start=0.1, steps=5),
        table(start=AT_LEAST_0, steps=POSITIVE, end=AT_LEAST_0, power=REAL),
    ),
    schedule.step: (table(start=0.1, every=5), table(start=AT_LEAST_0, every=POSITIVE, factor=AT_LEAST_0)),
    schedule.warmup: (table(then=0.1, steps=5), table(then=AT_LEAST_0, steps=POSITIVE)),
    callbacks.Checkpoint: (
        table(path="c"),
        table(path=PATH, every=POSITIVE, keep=INT_OR_NONE, monitor=([NOTHING, 3], []), mode=TESTED_ELSEWHERE),
    ),
    callbacks.Csv: (table(path="c"), table(path=PATH, append=FLAG)),
    callbacks.EarlyStop: (
        {},
        table(metric=([NOTHING, None, 3], []), patience=POSITIVE, min_delta=AT_LEAST_0, mode=WORD, restore_best=FLAG),
    ),
    callbacks.Progress: ({}, table(file=TESTED_ELSEWHERE, style=WORD)),
    callbacks.ReduceLROnPlateau: (
        {},
        table(
            metric=([NOTHING, None, 3], []),
            factor=REAL,
            patience=INT,
            min_delta=AT_LEAST_0,
            mode=WORD,
            cooldown=INT,
            min_lr=AT_LEAST_0,
        ),
    ),
    callbacks.TensorBoard: (table(folder="t"), table(folder=PATH)),
    callbacks.Trace: (table(path="t"), table(path=PATH, events=POSITIVE)),
    transforms.Cast: (table(dtype="float32"), table(dtype=DTYPE)),
    transforms.Native: (
        table(function=transforms.Native.PROTOTYPE(lambda *a: 0)),
        table(
            function=FUNCTION,
            dtype=([NOTHING, [1], "no dtype"], []),
            shape=EXTENTS,
            user_data=INT,
            owner=TESTED_ELSEWHERE,
        ),
    ),
    transforms.Normalize: (table(mean=0.0, std=1.0), table(mean=NUMBERS, std=NUMBERS, layout=WORD)),
    transforms.OneHot: (table(classes=3), table(classes=POSITIVE, dtype=DTYPE)),
    transforms.Python: (
        table(fn=identity),
        table(fn=FUNCTION, dtype=([NOTHING, [1], "no dtype"], []), shape=EXTENTS, rng=FLAG),
    ),
    transforms.RandomCrop: (table(size=3), table(size=SIZE, padding=INT, layout=WORD)),
    transforms.RandomFlip: ({}, table(p=(REAL[0], [-0.5, 1.5, float("nan")]), vertical=FLAG, layout=WORD)),
    transforms.Scale: (table(a=1.0), table(a=REAL, b=REAL)),
    sources.Callable: (
        table(fn=identity, length=3),
        table(fn=FUNCTION, length=POSITIVE, workers=WORD, num_workers=POSITIVE, rng=FLAG, reseed=FLAG),
    ),
    sources.Idx: (table(path="x"), table(path=PATH)),
    sources.Npy: (table(path="x"), table(path=PATH)),
    sources.RawRecords: (
        table(path="x", dtype="float32"),
        table(path=PATH, dtype=DTYPE, shape=EXTENTS, offset=INT),
    ),
}
TRAINER = {
    "dtype": ([NOTHING, 5, ["float32"]], ["int32", "float128"]),
    "threads": INT_OR_WORD,
    "accumulate": POSITIVE,
    "clip_norm": POSITIVE_OR_NONE,
    "nonfinite": WORD,
    "seed": INT_OR_NONE,
    "optimizer": ([NOTHING, "sgd", optim.SGD], []),
}


def rows() -> Any:
    for constructor, (_, kinds) in CONSTRUCTORS.items():
        for argument, (types, values) in kinds.items():
            for error, given in ((TypeError, types), (ValueError, values)):
                for value in given:
                    name = f"{constructor.__name__}-{argument}-{type(value).__name__}-{error.__name__}"
                    yield pytest.param(constructor, argument, value, error, id=name)


@pytest.mark.parametrize(("constructor", "argument", "value", "error"), [*rows()])
def test_the_error_says_whether_the_type_or_the_value_is_wrong(constructor, argument, value, error):
    with pytest.raises(error) as caught:
        constructor(**{**CONSTRUCTORS[constructor][0], argument: value})
    assert caught.type is error, caught.value


@pytest.mark.parametrize("argument", TRAINER)
def test_options_of_a_trainer(argument):
    for error, given in zip((TypeError, ValueError), TRAINER[argument], strict=True):
        for value in given:
            with pytest.raises(error, match=rf"^\[Trainer\] .*{argument}") as caught:
                gr.Trainer(nn.Linear(3, 2), **{"optimizer": optim.SGD(0.1), argument: value})
            assert caught.type is error, (value, caught.value)


@pytest.mark.parametrize("constructor", CONSTRUCTORS, ids=lambda c: c.__name__)
def test_the_good_values_are_taken(constructor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [nn.ReLU()] if constructor is nn.Residual else []
    assert constructor(*layers, **CONSTRUCTORS[constructor][0]) is not None


@pytest.mark.parametrize("layer", [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.ReLU()), nn.ReLU()], ids=repr)
def test_the_seed_of_init(layer):
    for error, given in ((TypeError, INT[0]), (ValueError, [-1, 2**63, 2**70, np.int64(-3)])):
        for seed in given:
            before = {name: array.copy() for name, array in layer.init(5).params.items()}
            with pytest.raises(error, match=rf"^\[{type(layer).__name__}\.init\] seed must be an int from 0 to") as caught:
                layer.init(seed)
            assert caught.type is error, (seed, caught.value)
            assert all(np.array_equal(layer.params[name], array) for name, array in before.items())
    for seed in (0, np.uint8(7), 2**63 - 1):
        same = {name: array.copy() for name, array in layer.init(int(seed)).params.items()}
        assert all(np.array_equal(layer.init(seed).params[name], array) for name, array in same.items())


def test_the_number_of_threads_and_the_seed_of_a_process():
    before = gr.get_num_threads()
    for error, given in ((TypeError, [*INT[0], 2.0, np.True_]), (ValueError, [0, -1, 257, 2**40, 2**70])):
        for n in given:
            with pytest.raises(error, match=r"^\[set_num_threads\] n must be an int from 1 to 256, got") as caught:
                gr.set_num_threads(n)
            assert caught.type is error, (n, caught.value)
            assert gr.get_num_threads() == before
    try:
        gr.set_num_threads(np.int32(3))
        assert gr.get_num_threads() == 3
    finally:
        gr.set_num_threads(before)
    for n in (*INT[0], np.True_):
        with pytest.raises(TypeError, match=rf"^\[seed\] n is a .*{type(n).__name__}: must be an integer"):
            gr.seed(n)
