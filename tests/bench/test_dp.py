"""The race of data-parallel steps: what its contenders compute, and how ranks in processes are asked."""

import threading
from multiprocessing import Pipe
from pathlib import Path

import pytest

from gradring.bench import dp, dp_more
from gradring.bench.dp_contenders import our_ranks, ours, serve

FOLDER = Path(__file__).parents[2] / "benchmarks" / "peers"
CASE = {"sizes": (13, 7, 5), "batch": 10, "ranks": 2, "min_seconds": 0.01}
OURS = [dp.OURS, dp.REPLICAS, dp.ONE_RANK]


def test_two_replicas_compute_the_losses_of_one_rank(monkeypatch):
    monkeypatch.setenv("GRADRING_BENCH_THREADS", "2")
    one, two = (ours(CASE, replicas) for replicas in (1, 2))
    losses = [one() for _ in range(5)]
    assert [two() for _ in range(5)] == pytest.approx(losses, rel=1e-5)
    assert losses[4] < losses[0]


CUSTOM = {**CASE, "sizes": (13, 5), "custom": True}


@pytest.mark.parametrize("case", [CASE, CUSTOM], ids=["layers", "custom"])
def test_two_processes_compute_the_losses_of_one_rank(monkeypatch, case):
    monkeypatch.setenv("GRADRING_BENCH_THREADS", "1")
    one, two = ours(case, 1), our_ranks(case)
    assert two.facts["first"] == pytest.approx([one() for _ in range(4)], rel=1e-5)
    measured = two.measure()
    assert measured["seconds"] > 0 and measured["cpu_seconds"] > 0
    two.close()


def test_the_contenders_are_ours_and_those_of_the_folder():
    assert [racer.name for racer in dp.contenders(None)] == OURS
    names = [racer.name for racer in dp.contenders(FOLDER)]
    assert names == [*OURS, "torch DDP", "torch DDP, default", "jax, 2 host devices"]
    chosen = dp.contenders(FOLDER, ["PyTorch DDP"])
    assert [racer.name for racer in chosen] == [*OURS, "torch DDP"]
    with pytest.raises(ValueError, match="no peer is called 'horovod'"):
        dp.contenders(FOLDER, ["horovod"])


def test_the_further_rows_have_what_they_say(capsys):
    (update,) = dp_more.updates([(40, 30)], steps=2)
    assert update["parameters"] == 1230 and update["seconds"] > 0 and update["all_reduce then AdamW"] > 0
    one, two = dp_more.growth((13, 7, 5), 10, ranks=(1, 2), min_seconds=0.01)
    assert [one["meetings"], one["bytes"]] == [0, 0]
    # The gradients have 11 grains of 16 elements. Rank 1 owns 6 of them, and reads them from two planes.
    assert two["meetings"] == 2 and two["bytes"] == 2 * 4 * 6 * 16
    parts = two["parts"]
    assert 0 < parts["compute"] + parts["reduction"] + parts["update"] <= parts["step"]
    (row,) = dp_more.memory(None, (784, 512, 10))
    assert row["bytes"] > 5 * 4 * 407_050  # parameters, two moments, and the gradients of two ranks
    assert capsys.readouterr().out.count("\n") == 4


def test_a_rank_answers_until_its_pipe_ends():
    here, there = Pipe()
    calls = iter(range(10_000))

    def step():
        number = next(calls)
        if number == 4:
            raise ArithmeticError("the fifth step")
        return float(number)

    rank = threading.Thread(target=serve, args=(step, there))
    rank.start()
    here.send(("first", 4))
    assert here.recv() == [0.0, 1.0, 2.0, 3.0]
    here.send(("time", 4))
    assert here.recv() == "ArithmeticError: the fifth step"
    here.send(("time", 4))
    wall, cpu = here.recv()
    assert wall >= 0 and cpu >= 0
    assert next(calls) == 10  # a quarter more to warm up, and those that count
    here.close()
    rank.join(timeout=60)
    assert not rank.is_alive()
