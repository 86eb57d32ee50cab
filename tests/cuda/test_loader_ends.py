"""What runs or waits on the device when a loader, a pass or the interpreter ends. In the lazy schedule, no copy has run when it
is queued."""

import pytest

from device_producers import run_lazily


@pytest.mark.parametrize("schedule", ["eager", "lazy", "5"])
def test_a_worker_that_is_killed_in_mid_copy_spoils_no_batch(schedule):
    script = """
import os, signal
import numpy as np
import gradring as gr
from device_producers import sample
if __name__ == "__main__":
    source = gr.sources.Callable(sample, 200, workers="processes", num_workers=1)
    loader = gr.Loader(source, 10, device="cuda", restart=3)
    killed, got = 0, []
    for batch in loader:
        got.append(batch)  # its copy, and that of the next one, may still be queued
        if len(got) in (3, 9):
            os.kill(loader._last.workers.pids[0], signal.SIGKILL)
            killed += 1
    del batch
    values = np.concatenate([y.numpy() for _, y in got])
    assert (np.concatenate([x.numpy() for x, _ in got])[:, 1] == values).all()
    assert killed == 2 and loader.stats().restarted >= 1, loader.stats()
    print(int((values != np.arange(200)).sum()))
    del got
"""
    assert run_lazily(script, GRADRING_CUDA_SCHEDULE=schedule) == "0"


@pytest.mark.parametrize("schedule", ["eager", "lazy", "5"])
@pytest.mark.parametrize("end", ["loader.close()", "del iterator", "del loader", "iterator = None; loader.close()"])
def test_an_end_in_mid_copy_leaves_batches_whole(schedule, end):
    script = """
import gc
import numpy as np
import gradring as gr
x = np.arange(4000).reshape(40, 100)
loader = gr.Loader(x, 4, device="cuda", num_threads=2)
iterator = iter(loader)
held = [next(iterator), next(iterator)]  # their copies are queued
END
gc.collect()
x[...] = -1  # what is copied later is not from here
print(int((np.concatenate([batch.numpy() for batch in held]) != np.arange(800).reshape(8, 100)).sum()))
iterator = loader = None
del held
"""
    assert run_lazily(script.replace("END", end), GRADRING_CUDA_SCHEDULE=schedule) == "0"


@pytest.mark.parametrize("schedule", ["eager", "lazy", "5"])
def test_the_interpreter_ends_with_copies_queued_and_batches_held(schedule):
    script = """
import numpy as np
import gradring as gr
from gradring import cuda
loader = gr.Loader(np.arange(4000).reshape(40, 100), 4, device="cuda", num_threads=2)
iterator = iter(loader)
held = [next(iterator) for _ in range(5)]
with cuda.use_stream(cuda.Stream()):
    out = cuda.copied(held[4])
print("queued", flush=True)
"""
    assert run_lazily(script, GRADRING_CUDA_SCHEDULE=schedule) == "queued"


def test_a_thousand_early_breaks_leave_the_same_memory_streams_and_events():
    script = """
import gc
import numpy as np
import gradring as gr
from gradring import cuda
calls = cuda.streams.native().software_calls
kinds = {
    "memory": (("cudaMalloc",), ("cudaFree",)),
    "pinned": (("cudaHostAlloc", "cudaMallocHost"), ("cudaFreeHost",)),
    "registered": (("cudaHostRegister",), ("cudaHostUnregister",)),
    "streams": (("cudaStreamCreateWithPriority",), ("cudaStreamDestroy",)),
    "events": (("cudaEventCreateWithFlags",), ("cudaEventDestroy",)),
}

def left():
    gc.collect()
    now = calls()
    count = lambda names: sum(now.get(name, 0) for name in names)
    return {kind: count(made) - count(ended) for kind, (made, ended) in kinds.items()}

loader = gr.Loader(np.arange(64), 4, device="cuda", num_threads=1)
def passes(count):
    for number in range(count):
        for at, batch in enumerate(loader):
            if at == number % 3:
                break

passes(30)
before = left()
assert before["events"] > 0 and before["registered"] > 0, before
passes(1000)
assert left() == before, (before, left())
loader.close()
del loader
print(0)
"""
    assert run_lazily(script) == "0"  # the device reports what was not freed, and the script would fail
