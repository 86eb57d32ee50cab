"""Calls while the current stream captures a graph. Every entry of the library that waits for the device or takes memory refuses
that before anything touches the capture, which ends well; what was refused then works, and nothing of it has changed."""

import copy
import pickle

import numpy as np
import pytest

import gradring as gr
from device_producers import Interface, on_device, run_lazily
from gradring import cuda

ROWS = 16


def model():
    return gr.nn.Sequential(gr.nn.Linear(6, 8), gr.nn.ReLU(), gr.nn.Linear(8, 3))


def own_step(params, batch):
    x, _ = batch
    grads = {"w": x[:6]}
    return 0.5, grads, len(x)


class World:
    """What the entries use. Each is made anew for each test."""

    def __init__(self, folder):
        rng = np.random.default_rng(5)
        self.x = rng.standard_normal((ROWS * 3, 6)).astype(np.float32)
        self.y = rng.integers(0, 3, ROWS * 3)
        self.dx, self.dy = on_device(self.x), on_device(self.y.astype(np.int32))
        self.square = on_device(rng.standard_normal((6, 6)).astype(np.float32))
        self.model = model()
        self.another = model().to("cuda")
        self.trainer = gr.Trainer(self.model, device="cuda", optimizer=gr.optim.SGD(0.1))
        self.loader = gr.Loader((self.x, self.y), ROWS)
        self.fed = gr.Loader((self.x, self.y), ROWS, device="cuda")
        self.file, self.folder = folder / "a.safetensors", folder
        self.trainer.save(self.file)
        self.user = gr.Trainer(
            step=own_step, params={"w": on_device(np.zeros((6, 6), np.float32))}, optimizer=gr.optim.SGD(0.1)
        )
        self.state = self.trainer.state_dict()
        self.three = on_device(np.zeros((6, 3), np.float32))
        self.product = on_device(np.zeros((6, 6), np.float32))
        self.captured, self.other = cuda.Stream(), cuda.Stream()
        with cuda.use_stream(self.other):
            self.elsewhere = on_device(self.x)


def iteration(w):
    batches = iter(w.fed)
    return lambda: next(batches)


def another_pass(w):
    return lambda: next(iter(gr.Loader((w.x, w.y), ROWS, device="cuda")))


def copy_with_gaps(w):
    return lambda: w.dx[::2, ::3].numpy()


def fit_of_device_batches(w):
    batches = [(w.dx[at : at + ROWS], w.dy[at : at + ROWS]) for at in (0, ROWS)]
    return lambda: w.trainer.fit(batches, verbose=False)


def assign_optimizer(w):
    return lambda: setattr(w.trainer, "optimizer", gr.optim.SGD(0.2))


def move(w):
    moved = model().to("cuda")

    def there_and_back():
        moved.to("cpu")
        moved.to("cuda")

    return there_and_back


def move_another(w):
    return lambda: model().to("cuda")


# A line for each entry: its name, and a function of the world that returns the call.
ENTRIES = {
    "Trainer": lambda w: lambda: gr.Trainer(model(), device="cuda"),
    "Trainer of a model on the device": lambda w: lambda: gr.Trainer(w.model, device="cuda"),
    "Trainer(step=)": lambda w: lambda: gr.Trainer(step=own_step, params={"w": w.square}),
    "step": lambda w: lambda: w.trainer.step(w.x[:ROWS], w.y[:ROWS]),
    "step of arrays on the device": lambda w: lambda: w.trainer.step(w.dx[:ROWS], w.dy[:ROWS]),
    "step of arrays on another stream": lambda w: (
        lambda: w.trainer.step(Interface(w.elsewhere[:ROWS], stream=w.other.handle), w.dy[:ROWS])
    ),
    "step of one's own": lambda w: lambda: w.user.step((w.dx, w.dy)),
    "fit": lambda w: lambda: w.trainer.fit((w.x, w.y), batch_size=ROWS, verbose=False),
    "fit of a loader": lambda w: lambda: w.trainer.fit(w.loader, verbose=False),
    "fit of a loader on the device": lambda w: lambda: w.trainer.fit(w.fed, verbose=False),
    "fit of device batches": fit_of_device_batches,
    "fit by a step of one's own": lambda w: lambda: w.user.fit(w.fed, verbose=False),
    "predict": lambda w: lambda: w.trainer.predict(w.x),
    "predict of arrays on the device": lambda w: lambda: w.trainer.predict(w.dx),
    "predict_proba": lambda w: lambda: w.trainer.predict_proba(w.x),
    "the model's call": lambda w: lambda: w.model(w.x),
    "the model's call on the device": lambda w: lambda: w.model(w.dx),
    "evaluate": lambda w: lambda: w.trainer.evaluate((w.x, w.y)),
    "evaluate of a loader": lambda w: lambda: w.trainer.evaluate(w.loader),
    "save": lambda w: lambda: w.trainer.save(w.folder / "b.safetensors"),
    "save by a step of one's own": lambda w: lambda: w.user.save(w.folder / "c.safetensors"),
    "load": lambda w: lambda: w.trainer.load(w.file),
    "state_dict": lambda w: lambda: w.trainer.state_dict(),
    "load_state_dict": lambda w: lambda: w.trainer.load_state_dict(w.state),
    "reset": lambda w: lambda: w.trainer.reset(0),
    "params": lambda w: lambda: w.trainer.params,
    "buffers": lambda w: lambda: w.trainer.buffers,
    "a parameter's write": lambda w: lambda: w.model.params.update({"0.bias": np.zeros(8)}),
    "optimizer": assign_optimizer,
    "model.to": move,
    "model.to of another model": move_another,
    "model.save": lambda w: lambda: w.model.save(w.folder / "d.safetensors"),
    "model.init": lambda w: lambda: w.model.init(1),
    "model.astype": lambda w: (
        lambda: w.another.astype("float64" if w.another.params["0.bias"].itemsize == 4 else "float32")
    ),
    "a copy of the model": lambda w: lambda: copy.deepcopy(w.model),
    "a pickle of the model": lambda w: lambda: pickle.dumps(w.model),
    "a trainer's gradients": lambda w: lambda: w.trainer.session.grads,
    "fit that is traced": lambda w: (
        lambda: w.trainer.fit((w.x, w.y), callbacks=[gr.callbacks.Trace(w.folder / "t.json")], verbose=False)
    ),
    "a part of a loader": lambda w: lambda: w.fed.split(0.5),
    "Loader": lambda w: lambda: gr.Loader((w.x, w.y), ROWS, device="cuda"),
    "a loader's first batch": another_pass,
    "iter(loader)": lambda w: lambda: iter(w.fed),
    "next(loader)": iteration,
    "Stream": lambda w: lambda: cuda.Stream(),
    "Stream.synchronize": lambda w: lambda: w.captured.synchronize(),
    "empty": lambda w: lambda: cuda.empty((3, 1 << 12)),
    "copied": lambda w: lambda: cuda.copied(w.dx),
    "numpy()": lambda w: lambda: w.dx.numpy(),
    "numpy.asarray": lambda w: lambda: np.asarray(w.dx),
    "numpy() with gaps": copy_with_gaps,
    "array[...] = host values": lambda w: lambda: w.square.__setitem__(..., np.ones((6, 6))),
    "array[:, ::2] = host values": lambda w: lambda: w.square.__setitem__((slice(None), slice(None, None, 2)), 1.0),
    "float(array)": lambda w: lambda: float(w.square[0, 0]),
    "as_array of another stream": lambda w: lambda: cuda.as_array(Interface(w.elsewhere, stream=w.other.handle)),
    "DLPack for another stream": lambda w: lambda: w.dx.__dlpack__(stream=w.other.handle),
    "DLPack's copy": lambda w: lambda: w.dx.__dlpack__(stream=-1, copy=True),
    "an op with a result of its own": lambda w: lambda: gr.ops.gelu(w.dx),
    "an op with labels": lambda w: lambda: gr.ops.softmax_cross_entropy(w.dx[:, :3], w.dy, reduction="mean"),
    "an op on an array with gaps": lambda w: lambda: gr.ops.gelu(w.square[:, ::2], out=w.three),
    "an op with scratch memory": lambda w: lambda: gr.ops.matmul(w.square, w.square, out=w.product),
    "an op that overwrites its argument": lambda w: lambda: gr.ops.gelu(w.square, out=w.square),
}


def capture(stream, queue, mode=1):
    return cuda.streams.native().Recorded(0, stream.handle, queue, mode)


def refused(stream, call, mode):
    """The text of the error of ``call`` while ``stream`` captures. The capture then records two copies, which work."""
    source, out = on_device(np.arange(9.0)), on_device(np.zeros(9))
    text = []

    def queue():
        with cuda.use_stream(stream):
            out[...] = source
            with pytest.raises(gr.errors.GradringError) as caught:
                call()
            text.append(str(caught.value))
            out[:3] = source[3:6]

    graph = capture(stream, queue, mode)
    for _ in range(2):
        with cuda.use_stream(stream):
            out[...] = -1.0
            graph.launch(stream.handle)
            assert out.numpy().tolist() == [3, 4, 5, 3, 4, 5, 6, 7, 8]
    return text[0]


def looks(world):
    """What a refused call must leave as it is."""
    trainers = (world.trainer, world.user)
    arrays = [array.numpy() for trainer in trainers for array in trainer.params.values()]
    return [(t.step_count, len(t.history)) for t in trainers], [a.tolist() for a in [*arrays, world.square.numpy()]]


@pytest.mark.parametrize("warm", (False, True), ids=("cold", "warm"))
@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_refuses_a_capture_and_leaves_it_alone(name, warm, tmp_path):
    world = World(tmp_path)
    call = ENTRIES[name](world)
    for _ in range(2 if warm else 0):
        call()
    before = looks(world)
    for mode in range(3):  # global, local to the thread, relaxed
        text = refused(world.captured, call, mode)
        assert text[0] == "[" and "is capturing a graph" in text and "before the capture begins" in text, text
    assert looks(world) == before
    call()
    assert np.isfinite(float(world.trainer.step(world.x[:ROWS], world.y[:ROWS])))


# These need neither the stream nor memory.
READS = {
    "step_count": lambda w, loss: w.trainer.step_count,
    "float(loss)": lambda w, loss: float(loss),
    "loss_scale": lambda w, loss: w.trainer.loss_scale,
    "timings": lambda w, loss: w.trainer.timings(),
    "plan": lambda w, loss: w.trainer.plan(),
    "the state of a loader": lambda w, loss: w.fed.load_state_dict(w.fed.state_dict()),
    "a view": lambda w, loss: repr(w.dx[1:, ::2]),
    "record_stream": lambda w, loss: w.dx.record_stream(w.other),
    "DLPack for the current stream": lambda w, loss: w.dx.__dlpack__(stream=w.captured.handle),
    "as_array": lambda w, loss: cuda.as_array(Interface(w.dx, stream=None)),
}


@pytest.mark.parametrize("name", READS)
def test_what_needs_neither_the_stream_nor_memory_goes_on(name, tmp_path):
    world = World(tmp_path)
    source, out = on_device(np.arange(3.0)), on_device(np.zeros(3))
    for mode in range(3):
        loss = [world.trainer.step(world.x[:ROWS], world.y[:ROWS]) for _ in range(3)][
            -1
        ]  # the device has not done these

        def queue(loss=loss):
            with cuda.use_stream(world.captured):
                READS[name](world, loss)
                out[...] = source

        graph = capture(world.captured, queue, mode)
        graph.launch(world.captured.handle)
        with cuda.use_stream(world.captured):
            assert out.numpy().tolist() == [0, 1, 2]
            out[...] = 0.0


@pytest.mark.parametrize(
    "name", ("step", "step of arrays on the device", "next(loader)", "numpy()", "empty", "model.to")
)
def test_the_legacy_stream_counts_as_capturing_while_a_stream_captures_that_waits_for_it(name, tmp_path):
    """CUDA ends the capture of such a stream, here the thread's default one, when anything is queued on the legacy stream."""
    world = World(tmp_path)
    call, source, out = ENTRIES[name](world), on_device(np.arange(3.0)), on_device(np.zeros(3))
    texts = []

    def queue():
        for current in (cuda.streams.PER_THREAD, 0, cuda.streams.LEGACY):
            with cuda.use_stream(current), pytest.raises(gr.errors.GradringError) as caught:
                call()
            texts.append(str(caught.value))
        with cuda.use_stream(cuda.streams.PER_THREAD):
            out[...] = source

    graph = cuda.streams.native().Recorded(0, cuda.streams.PER_THREAD, queue)
    assert all("is capturing a graph" in text for text in texts), texts
    graph.launch(0)
    assert out.numpy().tolist() == [0, 1, 2]
    call()


def test_a_refused_batch_comes_next():
    x = np.arange(60.0, dtype=np.float32).reshape(30, 2)
    loader, stream = gr.Loader(x, 4, device="cuda"), cuda.Stream()
    batches, seen = iter(loader), []
    for _ in range(3):
        seen.append(next(batches).numpy())
        refused(stream, lambda: next(batches), 0)
        assert loader.state_dict()["position"] == 4 * len(seen)
    seen += [batch.numpy() for batch in batches]
    np.testing.assert_array_equal(np.concatenate(seen), x)


def test_ops_that_are_given_out_are_captured():
    """They read and write the same arrays at each launch."""
    rng, stream = np.random.default_rng(3), cuda.Stream()
    x = on_device(np.zeros((5, 7), np.float32))
    inner, out = on_device(np.zeros((5, 7), np.float32)), on_device(np.zeros((5, 7), np.float32))

    def queue():
        with cuda.use_stream(stream):
            gr.ops.gelu(x, out=inner)
            gr.ops.softmax(inner, out=out)

    graph = capture(stream, queue)
    for _ in range(2):
        values = rng.standard_normal((5, 7)).astype(np.float32)
        with cuda.use_stream(stream):
            x[...] = values
            graph.launch(stream.handle)
            np.testing.assert_allclose(out.numpy(), gr.ops.softmax(gr.ops.gelu(values)), rtol=1e-5, atol=1e-6)


DEATHS = """
import gc
import os
import numpy as np
from device_producers import Tensor, on_device
from gradring import cuda

native, wrong = cuda.streams.native(), 0
for owner, user, shared in [(0, 1, False), (1, 0, False), (0, 1, True), (1, 0, True)]:
    both = cuda.Stream(), cuda.Stream()
    with cuda.use_stream(both[owner]):
        array = on_device(np.arange(700.0))
    array.record_stream(both[user])
    if shared:
        Tensor(array).__dlpack__(stream=-1)
    held, address = [array], array.address
    del array
    source, out = on_device(np.arange(3.0)), on_device(np.zeros(3))

    def queue():
        with cuda.use_stream(both[0]):
            held.clear()
            out[...] = source

    graph = native.Recorded(0, both[0].handle, queue)
    graph.launch(both[0].handle)
    with cuda.use_stream(both[0]):
        wrong += out.numpy().tolist() != [0, 1, 2]
    for stream in both:
        with cuda.use_stream(stream):
            wrong += any(cuda.empty(700, "float64").address == address for _ in range(4))
print(wrong, flush=True)
os._exit(0)  # the pool keeps the graphs' memory until the process ends, which the device would report
"""


def test_an_array_of_two_streams_may_die_while_one_of_them_captures():
    """To free it, or to wait for a stream, would end the capture. Its memory stays with the graph."""
    assert run_lazily(DEATHS) == "0"
