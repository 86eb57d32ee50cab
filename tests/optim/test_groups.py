"""Parameter groups and frozen parameters: the same as PyTorch's, on every route of a step."""

import functools
import pickle

import numpy as np
import pytest

import gradring as gr
from gradring import graph as graphs
from gradring import parity
from gradring.graph import step_rules
from gradring.optim import SGD, Adam, AdamW, Lion, RMSprop, schedule

RNG = np.random.default_rng(8)
X = RNG.standard_normal((90, 7)).astype(np.float32)
Y = RNG.integers(0, 4, 90)
BATCHES = [(X[i : i + 30], Y[i : i + 30]) for i in range(0, 90, 30)]


def model():
    return gr.nn.Sequential(
        gr.nn.Linear(7, 11), gr.nn.ReLU(), gr.nn.Linear(11, 5), gr.nn.Tanh(), gr.nn.Linear(5, 6), gr.nn.Linear(6, 4)
    )


NO_DECAY = [{"params": "*.bias", "weight_decay": 0.0}]
PER_LAYER = [
    {"params": "0.*", "lr": 1e-3},
    {"params": ["2.weight", "2.bias"], "lr": schedule.linear(0.1, 0.0, 5), "weight_decay": 0.3},
    {"params": "5.?eight", "lr": 0.02},
]
OPTIMIZERS = {
    "sgd": SGD(0.1, weight_decay=0.1, groups=NO_DECAY),
    "nesterov": SGD(0.1, 0.9, True, groups=[{"params": "*.bias", "momentum": 0.0, "nesterov": False}, *PER_LAYER[2:]]),
    "adam": Adam(0.01, weight_decay=0.1, groups=PER_LAYER),
    "adamw": AdamW(0.01, groups=NO_DECAY),
    "amsgrad": Adam(0.01, amsgrad=True, groups=[{"params": "0.weight", "amsgrad": False, "betas": (0.5, 0.6)}]),
    "rmsprop": RMSprop(0.01, groups=PER_LAYER),
    "centered": RMSprop(0.01, 0.9, 1e-3, 0.1, momentum=0.9, centered=True, groups=NO_DECAY),
    "half centered": RMSprop(0.01, eps=1e-3, momentum=0.9, groups=[{"params": "0.*", "momentum": 0.0}]),
    "lion": Lion(0.01, weight_decay=0.1, groups=PER_LAYER),
    "scheduled": AdamW(schedule.cosine(0.1, 7), groups=PER_LAYER),
}
ROUTES = {
    "fused": {},
    "flat": {"fuse_update": False},
    "ignore": {"nonfinite": "ignore"},
    "clipped": {"clip_norm": 0.05},
    "accumulated": {"accumulate": 2, "clip_norm": 0.5},
}


def trained(optimizer, steps=6, frozen=(), dtype="float64", **options):
    session = gr.session.Session(model(), optimizer=optimizer, frozen=frozen, dtype=dtype, seed=3, **options)
    for step in range(steps):
        session.step(*BATCHES[step % 3])
    session.flush()
    return session


@functools.cache
def twins(optimizer, frozen, clip_norm, accumulate):
    """The parameters after the same steps in PyTorch and in plain NumPy."""
    fresh = gr.session.Session(model(), optimizer=SGD(0.1), dtype="float64", seed=3)
    options = {"loss": "cross_entropy", "optimizer": optimizer, "frozen": frozen, "dtype": "float64"}
    options |= {"clip_norm": clip_norm, "accumulate": accumulate}
    start = {name: array.copy() for name, array in fresh.params.items()}
    made = [parity.PlainTwin(model(), start, **options)]
    if optimizer.kind != "lion":  # which PyTorch does not have
        made.append(parity.Twin(parity.torch_forward(model()), start, **options))
    for one in made:
        for step in range(6):
            one.step(*BATCHES[step % 3])
        one.flush()
    return [one.params if isinstance(one, parity.PlainTwin) else one.arrays() for one in made]


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "frozen"),
    [*((name, ()) for name in OPTIMIZERS), *((n, ("0.*", "4.bias")) for n in ("sgd", "amsgrad", "centered"))],
)
def test_groups_train_as_in_pytorch(name, frozen):
    optimizer = OPTIMIZERS[name]
    if optimizer.kind != "lion":
        pytest.importorskip("torch")
    if frozen and optimizer.groups[0].params[0].startswith("0."):
        optimizer = Adam(0.01, weight_decay=0.1, amsgrad=True, groups=PER_LAYER[1:])
    for route, options in ROUTES.items():
        session = trained(optimizer, frozen=frozen, **options)
        assert set(session.frozen) == ({"0.weight", "0.bias", "4.bias"} if frozen else set())
        for right in twins(optimizer, session.frozen, options.get("clip_norm"), options.get("accumulate", 1)):
            for key, array in session.params.items():
                np.testing.assert_allclose(array, right[key], rtol=1e-9, atol=1e-12, err_msg=f"{route} {key}")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("frozen", [(), ("4.*",), ("*.weight",)])
def test_every_route_and_number_of_threads_has_the_same_bits(name, frozen):
    optimizer = OPTIMIZERS[name]
    if frozen:
        optimizer = AdamW(0.01, groups=[{"params": "?.bias", "lr": 0.1}], amsgrad=name == "amsgrad")
    sessions = [
        trained(optimizer, frozen=frozen, dtype="float32", threads=threads, **ROUTES[route])
        for route in ("fused", "flat", "ignore")
        for threads in (1, 2)
    ]
    first = {**sessions[0].params, **sessions[0].state}
    for other in sessions[1:]:
        for key, array in {**other.params, **other.state}.items():
            np.testing.assert_array_equal(array, first[key], err_msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("route", ROUTES)
def test_every_graph_is_legal(name, route, monkeypatch):
    monkeypatch.setenv("GRADRING_CHECK", "1")
    for frozen in ((), ("0.bias", "2.*")):
        optimizer = OPTIMIZERS[name] if not frozen else SGD(0.1, 0.9, groups=[{"params": "[04].*", "lr": 1.0}])
        session = trained(optimizer, steps=1, frozen=frozen, **ROUTES[route])
        assert session.draw_count == 1


def test_a_graph_that_updates_too_much_or_too_little_is_refused():
    options = {"optimizer": OPTIMIZERS["adam"], "clip_norm": 1.0}
    graph = graphs.train_graph(model(), (30, 7), gr.losses.CrossEntropy(), **options)
    updates = [node for node in graph.nodes if node.op == "adam"]
    assert [node.inputs["param"] for node in updates] == [
        "parameters[0.weight ... 0.bias]",
        "parameters[2.weight ... 2.bias]",
        "parameters[4.weight ... 4.bias]",
        "5.weight",
        "5.bias",
    ]
    step_rules.check_step_graph(graph)
    for leave in updates:
        with pytest.raises(ValueError, match="expected exactly one of the whole"):
            step_rules.check_step_graph(graph.with_nodes(node for node in graph.nodes if node is not leave))
        with pytest.raises(ValueError, match="expected exactly one of the whole"):
            step_rules.check_step_graph(graph.with_nodes([*graph.nodes, leave]))


# Frozen parameters


def test_frozen_parameters_stay_and_cost_nothing():
    free, partly = trained(AdamW(0.01)), trained(AdamW(0.01), frozen="[02].*")
    start = trained(AdamW(0.01), steps=0).params
    for name, array in partly.params.items():
        assert np.array_equal(array, start[name]) == name.startswith(("0.", "2.")), name
    assert partly.frozen == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert {name.split(".", 1)[1] for name in partly.state} == {"4.weight", "4.bias", "5.weight", "5.bias"}
    sizes = [{name: block.nbytes for name, _, block in one._arenas.native()} for one in (partly, free)]
    assert sizes[0]["parameters"] == sizes[1]["parameters"]
    assert sizes[0]["gradients"] < sizes[1]["gradients"] and sizes[0]["state"] < sizes[1]["state"]
    made = [instruction.op for instruction in partly.plan().instructions if instruction.when != "unbounded"]
    everything = [instruction.op for instruction in free.plan().instructions if instruction.when != "unbounded"]
    assert made.count("linear_dx") == 1 and everything.count("linear_dx") == 3  # to layer 4 alone
    assert partly.plan().flops < 0.7 * free.plan().flops
    assert partly.grads.keys() == {"4.weight", "4.bias", "5.weight", "5.bias"}


def test_a_frozen_layer_behind_a_trained_one_hands_the_gradient_on():
    session = trained(SGD(0.1), frozen=["5.*", "2.bias"])
    start = trained(SGD(0.1), steps=0).params
    moved = {name for name, array in session.params.items() if not np.array_equal(array, start[name])}
    assert moved == {"0.weight", "0.bias", "2.weight", "4.weight", "4.bias"}


def test_a_fine_tuning():
    trainer = gr.Trainer(model(), optimizer=AdamW(1e-2, groups=NO_DECAY), frozen=["0.*", "2.*"])
    head = gr.Trainer(trainer.model, optimizer=AdamW(1e-2))
    assert trainer.frozen == ("0.weight", "0.bias", "2.weight", "2.bias") and head.frozen == ()
    before = trainer.params["0.weight"].copy()
    trainer.fit((X, Y), epochs=2, verbose=False)
    np.testing.assert_array_equal(trainer.params["0.weight"], before)
    head.fit((X, Y), epochs=1, verbose=False)
    assert not np.array_equal(trainer.params["0.weight"], before)
    with pytest.raises(AttributeError, match="frozen is read-only"):
        trainer.frozen = ()


def test_running_moments_of_a_frozen_layer_move():
    layers = gr.nn.Sequential(gr.nn.Linear(7, 5), gr.nn.BatchNorm1d(5), gr.nn.Linear(5, 4))
    trainer = gr.Trainer(layers, optimizer=SGD(0.1), frozen=["1.*", "0.*"])
    before = {name: array.copy() for name, array in trainer.buffers.items()}
    trainer.step(X, Y)
    assert any(not np.array_equal(array, before[name]) for name, array in trainer.buffers.items())
    assert trainer.params["1.weight"].tolist() == [1.0] * 5


# A step of one's own


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_groups_and_frozen_parameters_in_a_step_of_ones_own(clip_norm):
    start = {name: RNG.standard_normal(5) for name in ("a.w", "a.b", "b.w")}

    def step(params, batch):
        return 1.0, {name: 2 * params[name] for name in ("a.w", "b.w")}  # none for the frozen one

    optimizer = Adam(
        0.1, weight_decay=0.5, groups=[{"params": "b.*", "lr": schedule.step(0.5, 1), "weight_decay": 0.0}]
    )
    own = {name: array.copy() for name, array in start.items()}
    trainer = gr.Trainer(step=step, params=own, optimizer=optimizer, frozen="a.b", clip_norm=clip_norm)
    assert trainer.frozen == ("a.b",)
    assert trainer.state_dict()["optimizer"].keys() == {"m.a.w", "v.a.w", "m.b.w", "v.b.w"}
    for _ in range(3):
        trainer.step(X)
    right = {name: array.copy() for name, array in start.items()}
    moments = {name: (np.zeros(5), np.zeros(5)) for name in start}
    for update in range(3):
        grads = {name: 2 * right[name] for name in ("a.w", "b.w")}
        if clip_norm:
            norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
            grads = {name: g * min(1, clip_norm / (norm + 1e-6)) for name, g in grads.items()}
        for name, decay, rate in (("a.w", 0.5, 0.1), ("b.w", 0.0, 0.5 * 0.1**update)):
            gr.ops.adam_update(right[name], grads[name], *moments[name], step=update + 1, lr=rate, weight_decay=decay)
    for name in start:
        np.testing.assert_allclose(own[name], right[name], rtol=1e-12)


# As values, and bad input


def test_an_optimizer_with_groups_is_a_value():
    optimizer = OPTIMIZERS["adam"]
    again = eval(repr(optimizer), {"Adam": Adam, **vars(schedule)})
    assert again == optimizer and hash(again) == hash(optimizer) and again != Adam(0.01, weight_decay=0.1)
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer
    assert len(optimizer.rates) == 4 and AdamW(0.1, groups=NO_DECAY).rates == (0.1,)
    np.testing.assert_allclose(optimizer.all_learning_rates(0, 2), [[0.01, 1e-3, 0.1, 0.02], [0.01, 1e-3, 0.08, 0.02]])


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ({"params": "*.bias"}, TypeError, r"groups must be a list of dicts .* got dict"),
        ("*.bias", TypeError, r"groups must be a list of dicts"),
        (["*.bias"], TypeError, r"groups\[0\] must be a dict with 'params'"),
        ([{"lr": 0.1}], ValueError, r"groups\[0\] has no 'params'"),
        ([{"params": [], "lr": 0.1}], ValueError, r"groups\[0\]\['params'\] has no pattern"),
        ([{"params": 3, "lr": 0.1}], TypeError, r"groups\[0\]\['params'\] must be a pattern .* got 3"),
        ([{"params": [b"a"], "lr": 0.1}], TypeError, r"must be patterns over the parameters' names.* got b'a'"),
        ([{"params": "*.bias"}], ValueError, r"groups\[0\] changes nothing.*frozen"),
        ([{"params": "*.bias", "weigth_decay": 0}], ValueError, r"no argument of AdamW: did you mean 'weight_decay'"),
        ([{"params": "*", "momentum": 0}], ValueError, r"no argument of AdamW: it can have lr, betas"),
        ([{"params": "*", "lr": 0.1}, {"params": "*", "lr": -1}], ValueError, r"groups\[1\]: lr .* got -1"),
        ([{"params": "*", "lr": float("nan")}], ValueError, r"groups\[0\]: lr must be a finite number"),
        ([{"params": "*", "weight_decay": float("nan")}], ValueError, r"weight_decay must be a finite number .* nan"),
        ([{"params": "*", "amsgrad": True}], ValueError, r"groups\[0\] needs the state 'vmax'"),
        ([{"params": "*", "groups": ()}], ValueError, r"'groups', which is no argument"),
    ],
)
def test_bad_groups_are_named_when_they_are_made(groups, error, words):
    with pytest.raises(error, match=words):
        AdamW(0.1, groups=groups)


@pytest.mark.parametrize(
    ("groups", "frozen", "error", "words"),
    [
        ([{"params": "*.bais", "lr": 1}], (), ValueError, r"groups\[0\]: '\*.bais' matches no parameter"),
        ([{"params": "0", "lr": 1}], (), ValueError, r"'0' matches no parameter: all of layer '0' is '0\.\*'"),
        ([{"params": "0.wieght", "lr": 1}], (), ValueError, r"did you mean '0.weight'"),
        ([{"params": "0.*", "lr": 1}, {"params": "*.bias", "lr": 2}], (), ValueError, r"'0.bias' is in two groups"),
        ([{"params": "0.*", "lr": 1}], "0.*", ValueError, r"all that it matches is frozen"),
        ((), "*", ValueError, r"freezes all 8 parameters.*nothing is left to train"),
        ((), ["*.bias", "*.weight"], ValueError, r"freezes all 8 parameters"),
        ((), ["0.*", "1.*"], ValueError, r"frozen: '1.\*' matches no parameter: they are called 0.weight, 0.bias"),
        ((), [0], TypeError, r"\[Trainer\] frozen must be patterns .* got 0"),
        ((), True, TypeError, r"\[Trainer\] frozen must be a pattern .* got True"),
    ],
)
def test_bad_patterns_are_named_before_the_first_step(groups, frozen, error, words):
    with pytest.raises(error, match=words):
        gr.Trainer(model(), optimizer=SGD(0.1, groups=groups), frozen=frozen)
    params = {name: np.ones(2) for name in model().init(0).params}
    with pytest.raises(error, match=words):
        gr.Trainer(step=lambda p, b: (0.0, p), params=params, optimizer=SGD(0.1, groups=groups), frozen=frozen)


def test_another_optimizer_must_fit_too_and_takes_over():
    trainer = gr.Trainer(model(), optimizer=AdamW(0.01), frozen="0.*")
    trainer.step(X, Y)
    kept = {name: array.copy() for name, array in trainer.session.state.items()}
    for groups in ([{"params": "7.*", "lr": 1.0}], [{"params": "0.bias", "lr": 1.0}]):
        with pytest.raises(ValueError, match="matches"):
            trainer.optimizer = AdamW(0.01, groups=groups)
    assert trainer.optimizer == AdamW(0.01)
    trainer.optimizer = AdamW(0.0, weight_decay=0.0, groups=[{"params": "5.bias", "lr": 0.5}])
    before = {name: array.copy() for name, array in trainer.params.items()}
    for name, array in kept.items():
        np.testing.assert_array_equal(trainer.session.state[name], array)
    trainer.step(X, Y)
    assert [name for name in before if not np.array_equal(before[name], trainer.params[name])] == ["5.bias"]


# Every layer, with any of its parameters frozen


def layered():
    return gr.nn.Sequential(
        gr.nn.Embedding(9, 6),
        gr.nn.Flatten(),
        gr.nn.LayerNorm(12),
        gr.nn.Residual(gr.nn.Sequential(gr.nn.Linear(12, 12), gr.nn.GELU(), gr.nn.RMSNorm(12))),
        gr.nn.Linear(12, 8, bias=False),
        gr.nn.BatchNorm1d(8),
        gr.nn.SiLU(),
        gr.nn.Linear(8, 4),
    )


@pytest.mark.parametrize("seed", range(8))
def test_what_is_not_frozen_gets_the_gradient_that_it_had(seed, monkeypatch):
    monkeypatch.setenv("GRADRING_CHECK", "1")
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, (20, 2)), rng.integers(0, 4, 20)
    free = gr.session.Session(layered(), optimizer=SGD(0.0), dtype="float64", seed=1, fuse_update=False)
    free.step(x, y)
    names = list(free.params)
    frozen = [name for name in names if rng.random() < (0.3, 0.5, 0.8)[seed % 3]] or names[:3]
    frozen = frozen[: len(names) - 1]
    options = {"clip_norm": 1e9} if seed % 2 else {"fuse_update": False}
    part = gr.session.Session(layered(), optimizer=SGD(0.0), dtype="float64", seed=1, frozen=frozen, **options)
    part.step(x, y)
    assert part.grads.keys() == set(names) - set(frozen)
    for name, gradient in part.grads.items():
        np.testing.assert_allclose(gradient, free.grads[name], rtol=1e-12, atol=1e-14, err_msg=name)
    fused = gr.session.Session(layered(), optimizer=AdamW(0.1), dtype="float64", seed=1, frozen=frozen)
    before = {name: array.copy() for name, array in fused.params.items()}
    fused.step(x, y)
    same = {name for name, array in fused.params.items() if np.array_equal(array, before[name])}
    assert same == set(frozen)


@pytest.mark.parametrize("options", [{}, {"fuse_update": False}, {"clip_norm": 1.0}, {"accumulate": 2}])
@pytest.mark.parametrize("left", ["0.weight", "2.bias", "5.weight"])
def test_one_parameter_alone_can_be_trained(left, options, monkeypatch):
    monkeypatch.setenv("GRADRING_CHECK", "1")
    names = list(model().init(0).params)
    start = trained(SGD(0.1), steps=0).params
    session = trained(Adam(0.1), steps=2, frozen=[name for name in names if name != left], **options)
    assert [name for name in names if not np.array_equal(session.params[name], start[name])] == [left]
