"""Worlds that torchrun, mpirun or srun describe: the ranks meet in an owner-only folder, and leave nothing there."""

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

import gradring as gr
from gradring.launch import foreign
from gradring.launch import place as place_module
from gradring.launch.environment import hints
from gradring.launch.place import MeetingPlace, owner_only_folder
from patience import promised

from . import slurm
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


def test_of_many_that_find_a_dead_socket_one_takes_the_place(folder):
    def attempt(_):
        place = MeetingPlace(hints(variables(0, 2)), 0)
        together.wait(30)
        try:
            return place, place.open()[1]
        except gr.GradringError as error:
            assert "MASTER_PORT 29511 is taken" in str(error)
            return None

    together = threading.Barrier(4)
    for _ in range(25):
        _, dead = MeetingPlace(hints(variables(0, 2)), 0).open()
        dead.close()
        with ThreadPoolExecutor(4) as pool:
            opened = [each for each in pool.map(attempt, range(4)) if each]
        assert len(opened) == 1
        place, listener = opened[0]
        key, link = place.connect()  # to the winner's socket, with the winner's key
        link.close()
        assert len(key) == 32
        place.remove()
        listener.close()
        assert os.listdir(folder) == []


def test_a_job_that_ends_leaves_alone_what_the_next_one_made(folder, monkeypatch):
    made = []

    class Watched(foreign.Hub):
        def close(self):
            super().close()
            place = MeetingPlace(hints(variables(0, 2)), 0)
            made.append((place, place.open()[1]))

    monkeypatch.setattr(foreign, "Hub", Watched)
    with pytest.raises(gr.PeerStalled):
        meet(0, 2, seconds=0.2)()
    (place, listener), *_ = made
    found = place.connect()
    assert found is not None, "the end of one job removed the next one's files"
    found[1].close()
    place.remove()
    listener.close()


def test_a_process_that_does_not_accept_connections_keeps_its_place(folder):
    place = MeetingPlace(hints(variables(0, 1)), 0)
    _, listener = place.open()
    listener.listen(0)
    waiting = []
    with suppress(BlockingIOError):
        for _ in range(50):
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            waiting[-1].setblocking(False)
            waiting[-1].connect(place._socket)
        pytest.fail("the queue of connections has no end")
    begin = time.monotonic()
    with pytest.raises(gr.GradringError, match="is taken"):
        MeetingPlace(hints(variables(0, 1)), 0).open()
    assert time.monotonic() - begin < promised(2.0)
    for each in [*waiting, listener]:
        each.close()
    place.remove()


def test_a_lock_that_a_stopped_process_holds_is_named(folder, monkeypatch):
    monkeypatch.setattr(place_module, "_LOCK_SECONDS", 0.2)
    place = MeetingPlace(hints(variables(0, 2)), 0)
    with open(place._lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(gr.GradringError, match=r"another process has held the lock /.*\.lock for 0.2 s"):
            place.open()
    os.unlink(place._lock)


def test_slurms_variables(folder, tmp_path):
    def of(rank):
        return {"SLURM_PROCID": str(rank), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_JOB_ID": "7"}

    script = write(tmp_path, SAY)
    started = [
        subprocess.Popen(
            [sys.executable, script], env={**os.environ, **of(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(3)
    ]
    outputs = [process.communicate(timeout=60) for process in started]
    assert [out for out, _ in outputs] == [f"{rank} 3 0 3\n" for rank in range(3)], outputs
    assert os.listdir(folder) == []


def test_slurm_itself(folder, tmp_path):
    why = slurm.missing()
    if why:
        pytest.skip(why)
    script = write(tmp_path, SAY)
    with slurm.cluster(folder.parent) as environment:
        command = [slurm.find("srun"), "-n", "2", "--overcommit", sys.executable, script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.splitlines()) == ["0 2 0 2", "1 2 0 2"], done.stdout
    assert os.listdir(folder) == []
