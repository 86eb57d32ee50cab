"""Starting interpreters: the one place where ranks and the loader's worker processes come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["start_interpreter"]

_CODE = "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from {module} import main; main(sys.argv[1])"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def start_interpreter(
    module: str,
    given: Mapping[str, Any],
    *,
    arguments: Sequence[str] = (),
    threads: int = 1,
    stdin: int | None = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter, with this one's flags and import path, that calls `main` of `module`.

    `main` gets `given` as JSON. The process inherits only the descriptors whose names end in ``_fd``. `arguments` follow
    in its `sys.argv`. The variables that tell libraries how many threads to start become `threads`, unless they are set.
    """
    passed = [value for key, value in given.items() if key.endswith("_fd") and value is not None]
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    code = _CODE.format(module=module)
    # Python itself ignores entries that are neither texts nor paths.
    path = [os.fsdecode(entry) for entry in sys.path if isinstance(entry, (str, bytes, os.PathLike))]
    command = [sys.executable, *flags, "-c", code, json.dumps(given), json.dumps(path), *arguments]
    environment = {**dict.fromkeys(_THREADS, str(threads)), **os.environ}
    # The process gets a session of its own: Ctrl-C reaches only the process that started it, which then ends it.
    return subprocess.Popen(command, stdin=stdin, pass_fds=passed, env=environment, start_new_session=True)
