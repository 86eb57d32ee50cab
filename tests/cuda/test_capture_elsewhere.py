"""Captures on streams that gradring's calls do not touch: of another thread, and while garbage is collected."""

import gc
import threading

import numpy as np
import pytest

import gradring as gr
from device_producers import on_device
from gradring import cuda

x = np.random.default_rng(4).standard_normal((64, 6)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int32)


def train():
    """All that a user does with a device, from new memory to its end."""
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(6, 8), gr.nn.ReLU(), gr.nn.Linear(8, 2)), device="cuda")
    trainer.fit(gr.Loader((x, y), 16, device="cuda"), 2, verbose=False)
    loss = float(trainer.step(on_device(x), on_device(y)))
    for batch, _ in gr.Loader((x, y), 16, device="cuda"):
        gr.ops.gelu(batch).numpy()
    trainer.predict(x), trainer.evaluate((x, y)), trainer.params["0.weight"].numpy()
    return loss


@pytest.mark.parametrize("mode", (0, 1, 2), ids=("global", "local to the thread", "relaxed"))
@pytest.mark.parametrize("here", (False, True), ids=("another thread", "the same thread"))
def test_a_capture_that_no_call_touches_goes_on(mode, here):
    """CUDA forbids other threads to take memory during a global capture, unless they say that they heed it."""
    stream, source, out = cuda.Stream(), on_device(np.arange(5.0)), on_device(np.zeros(5))
    found = []

    def work():
        found.append(train())
        gc.collect()

    def queue():
        with cuda.use_stream(stream):
            out[...] = source
        if here:
            work()  # on the legacy stream
            return
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    graph = cuda.streams.native().Recorded(0, stream.handle, queue, mode)
    assert len(found) == 1 and np.isfinite(found[0])
    with cuda.use_stream(stream):
        graph.launch(stream.handle)
        assert out.numpy().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("mode", (0, 1, 2))
def test_what_dies_during_a_capture_leaves_it_alone(mode):
    stream, source, out = cuda.Stream(), on_device(np.arange(5.0)), on_device(np.zeros(5))
    trainer = gr.Trainer(gr.nn.Linear(6, 2), device="cuda")
    user = gr.Trainer(step=lambda params, batch: (0.0, {"w": batch}), params={"w": on_device(x)}, optimizer=gr.optim.SGD(0.1))
    loader = gr.Loader((x, y), 16, device="cuda")
    batches = iter(loader)
    held = [trainer, user, loader, batches, next(batches), cuda.Stream(), trainer.step(x, y), user.step(on_device(x))]
    del trainer, user, loader, batches

    def queue():
        with cuda.use_stream(stream):
            out[...] = source
        held.clear()
        gc.collect()
        with cuda.use_stream(stream):
            out[:2] = source[3:]

    graph = cuda.streams.native().Recorded(0, stream.handle, queue, mode)
    with cuda.use_stream(stream):
        graph.launch(stream.handle)
        assert out.numpy().tolist() == [3, 4, 2, 3, 4]
    assert np.isfinite(train())
