"""The peers of the races compute the same training as each other, so that none wins by doing less."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from gradring import float32_products
from gradring.bench import contender, fit, gemm, loader, step, step_by_hand
from gradring.bench.harness import Case, Contender, Row, _agrees, _record, agree
from gradring.bench.peers import chosen_names, contenders, read_peers

FOLDER = Path(__file__).parents[2] / "benchmarks" / "peers"
MORE = read_peers(FOLDER)
CASE = {"sizes": (13, 7, 6, 5), "batch": 9}
FIT_CASE = {**CASE, "rows": 33, "epochs": 2}  # with a shorter last batch
OPTIMIZERS = ("momentum", "sgd", "adam")
# The compiled ones take tens of seconds to start; every race checks them itself, through Case.agree.
PEERS = {name: factory for name, factory in {**step.PEERS, **MORE.step}.items() if "compile" not in name}
FIT_PEERS = {name: factory for name, factory in {**fit.PEERS, **MORE.fit}.items() if "compile" not in name}
FACTORIES = {
    *(racer.factory for racer in contenders(step.PEERS, MORE.step, MORE)),
    *(racer.factory for racer in contenders(fit.PEERS, MORE.fit, MORE)),
    *(racer.factory for racer in contenders(gemm.PEERS, MORE.gemm, MORE)),
    *(racer.factory for race in loader.RACES for racer in loader.contenders(race, MORE)),
}
# Every race of 0.1.0, and the peers that it had.
ARRAYS = {"numpy", "spdl", "grain", "turboloader"}
SAMPLES = {f"torch samples, {count}" for count in ("0 workers", "1 worker", "2 workers")}
BATCHES = {f"torch batches, {count}" for count in ("0 workers", "0 workers, 1 thread", "1 worker", "2 workers")}
WORKERS = {name for name in SAMPLES | BATCHES if "0 workers" not in name}
EXPECTED = {
    "scale64": ARRAYS | SAMPLES | BATCHES | {"tf.data"},
    "scale512": ARRAYS | SAMPLES | BATCHES | {"tf.data"},
    "rows": ARRAYS | SAMPLES | BATCHES,
    "warm": ARRAYS | SAMPLES | BATCHES,
    "cold": SAMPLES | BATCHES | {"numpy", "turboloader"},
    "augment": SAMPLES
    | BATCHES
    | {f"torch windows, {how}" for how in ("0 workers", "0 workers, 1 thread", "2 workers")},
    **dict.fromkeys(("process2", "process8", "process32"), WORKERS | {"spdl", "spdl, 1 ahead", "grain"}),
    "first": {"torch samples, 2 spawned workers", "torch samples, 2 forked workers", "spdl"},
    "handoff": {"torch, 2 workers", "spdl"},
    "slowdown": set(),
}


@pytest.fixture(autouse=True)
def peers_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def losses(factory, calls, **more):
    work = contender.load(factory)({**CASE, **more})
    return [work() for _ in range(calls)]


@pytest.mark.parametrize("factory", sorted(FACTORIES))
def test_every_contender_exists_and_takes_its_options(factory):
    bound = inspect.signature(contender.load(*factory.split())).bind({})
    assert bound.arguments["case"] == {}


def test_no_race_lost_a_peer_in_the_move():
    by_hand = {"numpy by hand", "torch", "torch.compile", "torch by hand", "torch.compile by hand"}
    assert {*step.PEERS, *MORE.step} == by_hand | {"jax", "nn-engine-core"}
    assert {*fit.PEERS, *MORE.fit} == by_hand | {"jax", "jax scan", "nn-engine-core"}
    assert {*gemm.PEERS, *MORE.gemm} == {"numpy", "torch", "jax"}
    for race in loader.RACES:
        names = {racer.name for racer in loader.contenders(race, MORE)}
        assert {name for name in names if not name.startswith(("gradring", "ceiling"))} == EXPECTED[race.key]


@pytest.mark.parametrize("how", [{"dtype": "bfloat16"}, {"dtype": "float16"}, {"products": "pieces3"}, {"products": "pieces2"}])
def test_steps_with_other_products_train_as_those_of_float32(how, monkeypatch):
    monkeypatch.setenv("GRADRING_BENCH_THREADS", "1")
    monkeypatch.setattr(float32_products, "_warned", {"pieces3", "pieces2"})
    set_rates(monkeypatch, 0.05, 0.9)
    case = {"sizes": (96, 128, 64, 10), "batch": 64}
    plain = losses("gradring.bench.step_contenders:ours", 6, **case)
    for factory in ("gradring.bench.step_contenders:ours", PEERS["torch"], PEERS["jax"]):
        try:
            found = losses(factory, 6, **case, **how)
        except ImportError:
            continue  # the library is not installed
        np.testing.assert_allclose(found, plain, rtol=step.AGREE[next(iter(how.values()))], err_msg=factory)
        if "products" in how:  # the peers' float32
            break
        assert found != plain, factory


@pytest.mark.parametrize("factory", sorted(name for name in FACTORIES if "_jax:" in name))
def test_jax_with_one_thread_has_one_core(factory, monkeypatch):
    class OneCore(Exception):
        pass

    def refuse(process, cores):
        raise OneCore(len(cores))

    monkeypatch.setenv("GRADRING_BENCH_THREADS", "1")
    monkeypatch.setattr("os.sched_setaffinity", refuse)
    with pytest.raises(OneCore, match="^1$"):
        contender.load(*factory.split())(CASE)


def set_rates(monkeypatch, rate, momentum):
    for module in ("gradring.bench.step_contenders", "gradring.bench.step_by_hand", "step_torch", "step_jax"):
        try:
            monkeypatch.setattr(f"{module}.LEARNING_RATE", rate)
            monkeypatch.setattr(f"{module}.MOMENTUM", momentum)
        except ImportError:
            continue  # the library is not installed


def prepare(name, optimizer, monkeypatch):
    pytest.importorskip({"nn-engine-core": "nnengine"}.get(name, name.split()[0].split(".")[0]))
    monkeypatch.setenv("GRADRING_BENCH_THREADS", "2")
    differs = optimizer in MORE.differs.get(name, {})
    set_rates(monkeypatch, 0.02 if optimizer == "adam" else 0.5, 0.0 if differs else 0.9)
    if name == "nn-engine-core":
        monkeypatch.setattr("nn_engine.LEARNING_RATE", 0.02 if optimizer == "adam" else 0.5)


@pytest.mark.parity
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_takes_the_same_steps(name, optimizer, monkeypatch):
    prepare(name, optimizer, monkeypatch)
    found = losses(PEERS[name], 6, optimizer=optimizer)
    expected = losses(PEERS["numpy by hand"], 6, optimizer=optimizer)
    assert expected[5] < 0.9 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["gradring", *FIT_PEERS])
def test_every_peer_trains_the_same_epochs(name, optimizer, monkeypatch):
    prepare(name, optimizer, monkeypatch)
    factories = {**FIT_PEERS, "gradring": "gradring.bench.fit_contenders:ours"}
    case = {**FIT_CASE, "optimizer": optimizer}
    work = contender.load(factories[name])(case)
    found, expected = work.check(5), contender.load(FIT_PEERS["numpy by hand"])(case).check(5)
    assert expected[4] < 0.97 * expected[1]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    work()  # it trains in an order of its own, with a shorter last batch
    assert 0 < work.check(1)[0] != found[-1]


def test_numpy_follows_the_formula_of_adam_in_double():
    state = step_by_hand.flat_state(CASE)
    update = step_by_hand.numpy_update(state, {**CASE, "optimizer": "adam"})
    p, m, v = state.parameters.astype(float), 0.0, 0.0
    rng = np.random.default_rng(3)
    for number in range(1, 5):
        state.gradients[:] = rng.standard_normal(len(p))
        g = state.gradients.astype(float)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p -= 1e-3 * (m / (1 - 0.9**number)) / (np.sqrt(v / (1 - 0.999**number)) + 1e-8)
        update()
    np.testing.assert_allclose(state.parameters, p, rtol=0, atol=1e-6)


def test_a_contender_that_computes_something_else_disagrees():
    assert agree([1.0, 0.5], [1.0, 0.500001], 1e-5)
    assert not agree([1.0, 0.51], [1.0, 0.5], 1e-5)
    assert not agree([float("nan")], [1.0], 1e-5)


def test_a_peer_that_differs_must_begin_like_the_others_and_sets_nothing():
    same, other = Contender("same", ""), Contender("other", "", differs={"": "it forgets"})
    case, expected = Case("a case", {"optimizer": "adam"}, agree=1e-5), {}
    assert _agrees(other, case, [7.0, 1.0], expected, 0) and not expected
    assert _agrees(same, case, [2.0, 1.0], expected, 0)
    assert _agrees(other, case, [2.0, 9.0], expected, 0)
    assert not _agrees(other, case, [2.1, 1.0], expected, 0)
    assert not _agrees(same, case, [2.0, 9.0], expected, 0)


def test_a_peer_may_differ_with_one_optimizer_and_must_agree_with_the_others():
    peer = Contender("peer", "", differs={"sgd": "it forgets"})
    for optimizer, agrees in (("sgd", True), ("adam", False)):
        case = Case("a case", {"optimizer": optimizer}, agree=1e-5)
        assert _agrees(peer, case, [2.0, 9.0], {0: [2.0, 1.0]}, 0) is agrees


def test_times_are_of_a_step_where_a_call_makes_many():
    row = Row(Case("a case", {}, steps=4), {}, {}, {})
    _record(row, "gradring", {"seconds": 2.0, "cpu_seconds": 4.0})
    assert row.seconds == {"gradring": [0.5]} and row.cpu_seconds == {"gradring": 1.0}


def test_a_case_with_random_orders_is_checked_in_the_order_of_the_data():
    class Work:
        def __call__(self):
            return float("nan")

        def check(self, count):
            return [1.0] * count

    request = {"do": "prepare", "case": {}, "min_seconds": 0.0, "agree_calls": 3}
    assert contender.answer(lambda case: Work(), {}, request) == {"first": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize("given", ["NumPy by hand", "numpy  by HAND", "numpy by hand"])
def test_peers_are_chosen_as_the_tables_write_them(given):
    racers = contenders(step.PEERS, MORE.step, MORE, [given])
    assert [racer.name for racer in racers] == ["numpy by hand 1", "numpy by hand all"]
    assert [racer.name for racer in contenders(step.PEERS, MORE.step, MORE, ["PyTorch"])] == ["torch 1", "torch all"]


def test_an_unknown_peer_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"\[bench\] no peer is called 'theano': must be one of numpy, torch"):
        chosen_names(["numpy", "torch"], ["Torch", "theano"])


def test_a_folder_of_ones_own_joins_a_race(tmp_path):
    (tmp_path / "mine.py").write_text("def step(case, *, factor=1):\n    return lambda: case['batch'] * factor\n")
    (tmp_path / "peers.py").write_text("STEP = {'mine': 'mine:step factor=3'}\nDIFFERS = {'mine': 'it multiplies'}\n")
    mine = read_peers(tmp_path)
    racers = contenders(step.PEERS, mine.step, mine, ["mine"])
    assert {racer.folder for racer in racers} == {str(tmp_path)} and racers[0].difference({}) == "it multiplies"
    from gradring.bench.harness import Worker

    worker = Worker(racers[0])
    try:
        assert worker.missing is None
        reply = worker.ask(do="prepare", slot=0, case={"batch": 5}, min_seconds=0.0, agree_calls=2)
        assert reply == {"first": [15, 15]}
    finally:
        worker.close()


def test_a_folder_without_peers_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder with a file peers.py"):
        read_peers(tmp_path)
    assert read_peers(None).step == {}
