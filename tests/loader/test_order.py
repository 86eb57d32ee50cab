"""The stream: the same for any workers, shared out over ranks, and resumed anywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr

from .functions import Sample


def stream(loader):
    return np.concatenate([np.asarray(batch if isinstance(batch, np.ndarray) else batch[-1]) for batch in loader])


def test_the_stream_does_not_depend_on_who_fills_it():
    x = np.arange(501)
    streams = []
    for num_threads, prefetch in [(0, 1), (1, 1), (1, 4), (3, 2), (5, 16), ("auto", "auto")]:
        loader = gr.Loader(x, 8, shuffle=True, seed=9, num_threads=num_threads, prefetch=prefetch)
        streams.append([stream(loader).tolist() for _ in range(3)])
    assert all(other == streams[0] for other in streams)
    assert streams[0][0] != streams[0][1]


def test_processes_give_the_stream_of_threads():
    kinds = [{"workers": "threads"}, {"workers": "processes"}, {"workers": "processes", "num_workers": 3}]
    streams = []
    for kind in kinds:
        with gr.Loader(gr.sources.Callable(Sample(), 103, **kind), 8, shuffle=True, seed=4) as loader:
            for x, y in loader:
                assert np.array_equal(x, np.broadcast_to(y[:, None, None], x.shape))
            streams.append(stream(loader).tolist())
    assert streams[0] == streams[1] == streams[2] and sorted(streams[0]) == list(range(103))


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_random_transforms_do_not_depend_on_who_runs_them(num_threads):
    x = np.random.default_rng(0).integers(0, 255, (200, 8, 8, 3)).astype(np.uint8)
    steps = [gr.transforms.RandomFlip(), gr.transforms.RandomCrop(8, 2), gr.transforms.Scale(1 / 255, 0)]

    def epochs(threads):
        loader = gr.Loader(x, 16, shuffle=True, seed=2, transforms=steps, num_threads=threads)
        return [np.concatenate(list(loader)) for _ in range(2)]

    reference, other = epochs(2), epochs(num_threads)
    assert all(np.array_equal(a, b) for a, b in zip(reference, other, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans(), st.booleans())
def test_ranks_share_every_sample(samples, batch_size, world_size, shuffle, pad, drop_last):
    if drop_last and samples < batch_size * world_size:
        return
    parts = []
    for rank in range(world_size):
        loader = gr.Loader(
            np.arange(samples),
            batch_size,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
            pad=pad,
            drop_last=drop_last,
            num_threads=0,
        )
        batches = list(loader)
        assert len(batches) == len(loader)
        parts.append(np.concatenate(batches) if batches else np.zeros(0, int))
    everything = np.concatenate(parts)
    if drop_last:
        assert len({len(part) for part in parts}) == 1
    elif pad:
        assert {len(part) for part in parts} == {-(-samples // world_size)}
        assert set(everything.tolist()) == set(range(samples))
    else:
        assert sorted(everything.tolist()) == list(range(samples))


def test_a_launchers_environment_changes_nothing(monkeypatch):
    """Who wants a share says so: a loader for validation must not shrink because a launcher set a variable."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    loader = gr.Loader(np.arange(10), 3)
    assert (loader.rank, loader.world_size) == (0, 1) and stream(loader).tolist() == list(range(10))


@pytest.mark.parity
def test_padding_is_that_of_torch():
    data = pytest.importorskip("torch.utils.data")
    for samples in (1, 10, 11, 12, 13):
        for rank in range(4):
            sampler = data.DistributedSampler(range(samples), num_replicas=4, rank=rank, shuffle=False)
            loader = gr.Loader(np.arange(samples), 3, rank=rank, world_size=4, pad=True)
            assert stream(loader).tolist() == list(sampler)


@pytest.mark.parametrize("stop", [0, 1, 7, 24])
def test_a_resume_goes_on_exactly_there(stop):
    x = np.arange(250)
    whole = gr.Loader(x, 10, shuffle=True, seed=3)
    whole.set_epoch(5)
    expected = [stream(whole).tolist(), stream(whole).tolist()]

    first = gr.Loader(x, 10, shuffle=True, seed=3, num_threads=2, prefetch=6)
    first.set_epoch(5)
    iterator = iter(first)
    seen = [int(i) for _ in range(stop) for i in next(iterator)]
    state = first.state_dict()
    assert all(type(value) is int for value in state.values()) and state["position"] == 10 * stop

    second = gr.Loader(x, 10, shuffle=True, seed=0, num_threads=1, prefetch=1)
    second.load_state_dict(state)
    seen += stream(second).tolist()
    assert seen == expected[0]
    assert stream(second).tolist() == expected[1]


def test_a_resume_with_other_ranks_loses_and_doubles_nothing():
    x = np.arange(1000)
    seen, states = [], []
    for rank in range(4):
        loader = gr.Loader(x, 5, shuffle=True, seed=1, rank=rank, world_size=4)
        iterator = iter(loader)
        for _ in range(13):
            seen += next(iterator).tolist()
        states.append(loader.state_dict())
    assert all(state == states[0] for state in states)
    for rank in range(3):
        loader = gr.Loader(x, 8, shuffle=True, seed=1, rank=rank, world_size=3)
        loader.load_state_dict(states[0])
        seen += stream(loader).tolist()
    assert sorted(seen) == list(range(1000))


def test_a_resume_costs_the_same_anywhere():
    """It is arithmetic: a source of 10**12 samples is entered near its end without touching what lies before."""
    x = np.broadcast_to(np.float32(7), (10**12,))
    loader = gr.Loader(x, 4, shuffle=True, num_threads=1)
    loader.load_state_dict({"epoch": 3, "position": 10**12 - 6, "seed": 1})
    assert [len(batch) for batch in loader] == [4, 2]


def test_states_that_do_not_fit_are_refused():
    loader = gr.Loader(np.arange(10), 2)
    state = loader.state_dict()
    for change, words in [
        ({"samples": 11}, "of a source of 11 samples, this one has 10"),
        ({"shuffle": 1}, "shuffle=True"),
        ({"position": 11}, "beyond its 10 samples"),
        ({"epoch": -1}, r"epoch must be an int from 0 to \d+, got -1"),
    ]:
        with pytest.raises(ValueError, match=words):
            loader.load_state_dict({**state, **change})


def test_an_epoch_that_was_left_is_followed_by_the_next():
    loader = gr.Loader(np.arange(100), 10, shuffle=True)
    firsts = []
    for _ in range(3):
        for batch in loader:
            firsts.append(batch.tolist())
            break
    assert len({tuple(first) for first in firsts}) == 3 and loader.epoch == 2
    loader.set_epoch(0)
    assert next(iter(loader)).tolist() == firsts[0]
