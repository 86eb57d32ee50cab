"""One of gradring's ranks in ``gradring bench dp``: it waits at a socket for requests, and times its own steps.

python -m gradring run -n 2 -m gradring.bench.dp_rank FOLDER CASE
"""

from __future__ import annotations

import json
import socket
import sys

from .dp_contenders import Lines, custom_trainer, resident, serve, trainer_of
from .dp_parts import counts_of, parts_of, reduce_and_update
from .step_contenders import data

__all__ = ["main"]


def main(folder: str, text: str) -> None:
    """Serve the requests that come through the socket in the folder."""
    import gradring as gr

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{folder}/turns")
        pipe = Lines(connection)
    case = json.loads(text)
    comm = gr.comm.init()
    rows = slice(case["batch"] * comm.rank // comm.size, case["batch"] * (comm.rank + 1) // comm.size)
    x, y = (array[rows] for array in data(case))
    before = resident()
    trainer = custom_trainer(case, comm=comm) if case.get("custom") else trainer_of(case, comm=comm, threads=1)
    serve(
        lambda: trainer.step(x, y),
        pipe,
        parts=lambda steps: parts_of(trainer, lambda: trainer.step(x, y), steps),
        counts=lambda _: counts_of(trainer),
        memory=lambda _: resident() - before,
        update=lambda steps: reduce_and_update(comm, trainer, lambda: trainer.step(x, y), steps),
    )
    comm.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
