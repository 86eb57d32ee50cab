"""Worlds that torchrun, mpirun or srun describe: the ranks meet in an owner-only folder, and leave nothing there."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import gradring as gr
from gradring.launch import foreign
from gradring.launch.environment import hints
from gradring.launch.place import MeetingPlace, owner_only_folder
from patience import promised

from .scripts import write
from .worlds import Served, bring

SAY = "w = meet(); say(f'{w.rank} {w.size} {w.generation} {len(w.pidfds)}')"


@pytest.fixture
def folder(monkeypatch):
    """Where these ranks meet, and no others. Not tmp_path: a socket's path is short."""
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setattr(foreign, "_meetings", {})
        yield Path(runtime) / "gradring"


def variables(rank, size, port=29511, **more):
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **more}


def ranks(script, size, port=29511, **more):
    """The outputs of ranks that no launcher but this function starts."""
    processes = [
        subprocess.Popen(
            [sys.executable, script],
            env={**os.environ, **variables(rank, size, port, **more)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    return [process.communicate(timeout=60) for process in processes]


def test_torchruns_variables(folder, tmp_path):
    outputs = ranks(write(tmp_path, SAY), 3, TORCHELASTIC_RESTART_COUNT="2")
    assert [out for out, _ in outputs] == [f"{rank} 3 2 3\n" for rank in range(3)], outputs
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "launcher",
    [
        ["mpiexec.mpich", "-n", "2"],
        ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "-n", "2"],
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--no-python"],
    ],
    ids=["mpich", "openmpi", "torchrun"],
)
def test_launchers_themselves(folder, tmp_path, launcher):
    if shutil.which(launcher[0]) is None or ("torch.distributed.run" in launcher and find_spec("torch") is None):
        pytest.skip(f"{launcher[0]} is not installed")
    command = [*launcher, sys.executable, write(tmp_path, SAY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 2 0 2", "1 2 0 2"]
    assert os.listdir(folder) == []


def meet(rank, size, seconds=10.0, **more):
    def call():
        brought = bring(rank)
        return foreign.meet_under(hints(variables(rank, size, **more)), [d.fd for d in brought], seconds)

    return call


def test_what_an_earlier_job_left_is_replaced(folder, tmp_path):
    place = MeetingPlace(hints(variables(0, 2)), 0)
    _, listener = place.open()
    listener.close()  # as if killed: key and socket stay
    assert len(os.listdir(folder)) == 3
    # Rank 1 first finds the old key and the dead socket.
    outputs = ranks(write(tmp_path, "if os.environ['RANK'] == '0': time.sleep(0.5)\n" + SAY), 2)
    assert [out for out, _ in outputs] == ["0 2 0 2\n", "1 2 0 2\n"], outputs
    assert os.listdir(folder) == []


def test_a_path_that_is_too_long_for_a_socket_is_not_used(tmp_path, monkeypatch):
    runtime = tmp_path / ("r" * 60)
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert owner_only_folder() == Path(f"/tmp/gradring-{os.geteuid()}")


def test_a_taken_port_is_named(folder):
    place = MeetingPlace(hints(variables(0, 2)), 0)
    _, listener = place.open()
    with listener:
        begin = time.monotonic()
        with pytest.raises(gr.GradringError, match="MASTER_PORT 29511 is taken"):
            meet(0, 2)()
        assert time.monotonic() - begin < promised(5.0)
    place.remove()


def test_files_are_the_owners_alone(folder):
    place = MeetingPlace(hints(variables(0, 2)), 0)
    _, listener = place.open()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in os.listdir(folder):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    listener.close()
    place.remove()


def test_a_folder_of_others_is_refused(folder):
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="is not a folder of user"):
        owner_only_folder()
    folder.rmdir()
    folder.symlink_to(folder.parent)
    with pytest.raises(PermissionError, match="is not a folder of user"):
        owner_only_folder()


def test_a_key_that_others_can_read_is_refused(folder):
    place = MeetingPlace(hints(variables(0, 2)), 0)
    _, listener = place.open()
    with listener:
        os.chmod(place._key, 0o644)
        with pytest.raises(PermissionError, match="is not a file of user"):
            meet(1, 2)()
    place.remove()


def test_a_wrong_key_does_not_get_in(folder):
    place = MeetingPlace(hints(variables(0, 2)), 0)
    key, listener = place.open()
    with open(place._key, "wb") as file:
        file.write(bytes(len(key)))
    with Served(2, listener=listener) as served:
        with pytest.raises(gr.PeerStalled, match="rank 0 of 2 has not come to the meeting within 0.5 s"):
            meet(1, 2, seconds=0.5)()
        assert set(served.hub.refused) == {"a wrong key"}
    place.remove()


def test_a_rank_that_never_comes_is_named(folder):
    with pytest.raises(gr.PeerStalled, match="rank 1 of 2 has not joined within 0.3 s"):
        meet(0, 2, seconds=0.3)()
    assert os.listdir(folder) == []
    with pytest.raises(gr.PeerStalled, match="rank 0 of 2 has not come to the meeting within 0.3 s"):
        meet(1, 2, seconds=0.3)()


def test_worlds_that_span_hosts_are_refused_by_name(folder):
    begin = time.monotonic()
    with pytest.raises(
        gr.NotBuilt, match=r"a world of 4 ranks, .* spans hosts \(MASTER_ADDR 192.0.2.199 is no address"
    ):
        meet(1, 4, MASTER_ADDR="192.0.2.199")()
    assert time.monotonic() - begin < promised(5.0)


def test_ranks_that_are_said_to_be_elsewhere_are_waited_for_a_while_only(folder, monkeypatch):
    monkeypatch.setattr(foreign, "_OTHER_HOST_SECONDS", 0.3)
    for rank in (0, 1):
        with pytest.raises(gr.NotBuilt, match="a world of 4 ranks, 2 of them on this host, which spans hosts"):
            meet(rank, 4, seconds=60, LOCAL_WORLD_SIZE="2")()


def test_ranks_that_are_said_to_be_elsewhere_may_be_here(folder, tmp_path):
    outputs = ranks(write(tmp_path, SAY), 2, LOCAL_WORLD_SIZE="1")
    assert [out for out, _ in outputs] == ["0 2 0 2\n", "1 2 0 2\n"], outputs


def test_the_socket_takes_packets_only(folder):
    place = MeetingPlace(hints(variables(0, 2)), 0)
    _, listener = place.open()
    with listener, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link, pytest.raises(OSError):
        link.connect(place._socket)
    place.remove()
