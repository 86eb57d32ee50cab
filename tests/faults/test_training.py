"""Real kills and stops of ranks that train together: survivors raise in time, with parameters of a whole step or word that they
are torn."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gradring as gr
from launch.scripts import run
from patience import promised

from . import custom, stopping, training
from .test_failpoints import library  # noqa: F401
from .test_failpoints import pytestmark as needs_failpoints
from .test_faults import DEADLINE, survivors_error, survivors_errors


def test_two_processes_have_the_bits_of_two_replicas():
    assert gr.comm.spawn(training.steps, 2, 20, pin=False) == [training.alone(20)] * 2


def test_processes_with_shards_have_the_bits_of_replicas():
    one = training.sharded(0)
    assert one[0] == 50 and gr.comm.spawn(training.sharded, 4, 4, pin=False) == [one] * 4


@pytest.mark.parametrize("ranks, replicas", [(2, 2), (4, 1)])
def test_processes_with_shards_and_a_step_of_the_users_own(ranks, replicas):
    one = custom.custom_sharded(0)
    assert one[0] == 50 and gr.comm.spawn(custom.custom_sharded, ranks, ranks, replicas, pin=False) == [one] * ranks


@pytest.mark.parametrize("ranks", [2, 3])
def test_kill_9_before_a_step(ranks):
    for found in survivors_errors(ranks - 1, training.killed_before_a_step, 3, ranks=ranks):
        assert found["error"] == "PeerDied" and found["rank"] == 1 and found["signal"] == signal.SIGKILL
        assert found["seconds"] < promised(DEADLINE) and found["steps"] == 3 and found["again"] == "refused"
        assert not found["torn"]
        assert ranks > 2 or found["digest"] == training.alone(3)


@pytest.mark.parametrize("seconds", [0.05, 0.1003])
def test_kill_9_at_some_moment(seconds):
    found = survivors_error(training.killed_at_some_moment, seconds)
    assert found["error"] == "PeerDied" and found["seconds"] < promised(DEADLINE)
    assert found["torn"] or found["digest"] == training.alone(found["steps"])


def test_a_rank_that_is_stopped_for_a_while_changes_nothing():
    assert gr.comm.spawn(stopping.stopped_for_a_while, 2, pin=False) == [training.alone(4)] * 2


def test_a_rank_that_comes_back_too_late_touches_nothing():
    found = survivors_error(stopping.stopped, 5.0, 2.0)
    assert found["error"] == "PeerStalled" and "its process is stopped" in found["text"]
    assert found["unchanged"] and found["steps"] == 1 and found["digest"] == training.alone(1)


def test_a_restart_ends_with_the_bits_of_an_undisturbed_run(tmp_path):
    words = []
    for name in ("undisturbed", "killed"):
        done = run("-n", 2, "--max-restarts", 2, training.__file__, tmp_path / f"{name}.safetensors")
        assert done.returncode == 0, done.stderr
        words.append(done.stdout.split())
    assert [words[0][0], words[1][0]] == ["0", "1"] and words[0][1] == words[1][1]


@pytest.mark.parametrize("ranks", [(0,), (1,), (0, 1)], ids=str)
def test_a_signal_to_any_rank_ends_all_after_one_update_which_is_saved(ranks, tmp_path):
    path = str(tmp_path / "signal.safetensors")
    first, second = gr.comm.spawn(stopping.signalled, 2, path, ranks, pin=False)
    assert {first[0], second[0]} <= {"Ended", "PeerStopped"} and "Ended" in (first[0], second[0])
    assert first[1:] == second[1:] and first[1] == first[2] > 0


def test_an_interrupt_in_a_step_by_hand_ends_all_after_that_step():
    first, second = gr.comm.spawn(training.interrupted, 2, int(signal.SIGINT), pin=False)
    assert first[0] == "KeyboardInterrupt" and second[0] == "PeerStopped"
    assert first[1:] == second[1:] and first[1] == 3


def test_an_interrupt_while_the_later_rank_computes_ends_all_after_that_step(tmp_path):
    path = tmp_path / "interrupted.safetensors"
    ended = gr.comm.spawn(training.interrupted_while_it_computes, 2, str(path), pin=False)
    assert [name for name, _ in ended] == ["KeyboardInterrupt", "PeerStopped"]
    assert ended[0][1] == ended[1][1] >= 4 and path.exists()


# Where rank 1 dies or stops in its third step: after how many passes, and whether that step counts for the survivor, should
# rank 1 not come back; None: it is torn.
PLACES = {
    "before meeting": (2, False),
    "before settle": (2, None),
    "after settle": (2, None),
    "within update": (2 * training.BLOCKS + 2, None),  # rank 1 has updated two of its blocks
    "before done": (2, None),
    "after done": (2, True),
}


def fails_at(place, number, folder, monkeypatch):
    """Send this signal to rank 1 there. The folder has the library with failpoints."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    monkeypatch.setenv("GRADRING_FAILPOINT", f"{place},1,{PLACES[place][0]},{int(number)}")


@needs_failpoints
@pytest.mark.parametrize("place", PLACES)
def test_kill_9_in_each_phase_of_a_step(place, library, monkeypatch):  # noqa: F811
    fails_at(place, signal.SIGKILL, library.parent, monkeypatch)
    found = survivors_error(training.at_a_failpoint)
    assert found["error"] == "PeerDied" and found["rank"] == 1 and found["signal"] == signal.SIGKILL, found
    assert found["seconds"] < promised(DEADLINE) and found["unchanged"]
    _, counts = PLACES[place]
    if counts is None:
        assert found["torn"] and [found[name] for name in ("again", "save", "fit", "file")] == [*["torn"] * 3, False]
        return
    assert not found["torn"] and found["steps"] == 2 + counts and found["digest"] == training.alone(2 + counts)
    assert [found[name] for name in ("again", "save", "fit", "file")] == ["refused", "goes on", "refused", True]


@needs_failpoints
def test_kill_9_while_ranks_begin_to_share_leaves_the_parameters_private(library, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    # The first memory that ranks share is that of their meetings, the second that of the parameters.
    monkeypatch.setenv("GRADRING_FAILPOINT", f"shared,1,1,{int(signal.SIGKILL)}")
    found = survivors_error(training.killed_while_sharing)
    assert found == {"error": "PeerDied", "moved": True, "private": True, "same": True}


@needs_failpoints
@pytest.mark.parametrize("place", PLACES)
def test_a_stop_in_a_phase_of_a_step_that_ends_in_time_changes_nothing(place, library, monkeypatch):  # noqa: F811
    fails_at(place, signal.SIGSTOP, library.parent, monkeypatch)
    assert gr.comm.spawn(stopping.stopped_at_a_failpoint, 2, 0.5, 60.0, pin=False) == [training.alone(6)] * 2


@needs_failpoints
@pytest.mark.parametrize("place", PLACES)
def test_a_stop_in_a_phase_of_a_step_that_ends_too_late_touches_nothing(place, library, monkeypatch, tmp_path):  # noqa: F811
    fails_at(place, signal.SIGSTOP, library.parent, monkeypatch)
    found = survivors_error(stopping.stopped_at_a_failpoint, 0.0, 3.0, str(tmp_path))
    assert found["error"] == "PeerStalled" and "its process is stopped" in found["text"], found
    assert found["back"] and found["unchanged"], found


@pytest.mark.parametrize("whole", [True, False], ids=["before its update", "within its update"])
def test_kill_9_in_a_custom_update_leaves_the_survivor_a_whole_one(whole):
    found = survivors_error(custom.killed_in_a_custom_update, whole)
    assert "steps" in found, found
    steps = found["steps"]
    assert found["error"] == "PeerDied" and steps == 3 and found["again"] == "refused" and found["loaded"]
    with ThreadPoolExecutor(2) as pool:
        comms = gr.comm.thread_group(2, timeout=60)
        assert list(pool.map(custom.custom_steps, comms, [steps] * 2)) == [found["digest"]] * 2


@pytest.mark.parametrize("restart", [0, 1])
def test_a_worker_of_one_ranks_loader_that_dies(restart, tmp_path):
    first, second = gr.comm.spawn(training.a_worker_dies, 2, str(tmp_path), restart, pin=False)
    assert [first[0], second[0]] == ([""] * 2 if restart else ["PeerStopped", "WorkerDied"])
    assert first[1:] == second[1:] and (first[1] == 10 if restart else first[1] < 10)


@pytest.mark.parametrize("collective", [True, False], ids=["save", "callback"])
def test_a_checkpoint_that_is_written_while_a_peer_dies_is_whole(collective, tmp_path):
    found = survivors_error(training.a_peer_dies_during_a_save, str(tmp_path / "a.safetensors"), collective)
    assert found["error"] == "PeerDied" and found["whole"], found


def kill_ranks(*options):
    """What scripts/kill_ranks.py says at its end: it has compared the parameters with those of an undisturbed run."""
    script = Path(__file__).parents[2] / "scripts" / "kill_ranks.py"
    command = [sys.executable, str(script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("doing, rank", [("in a callback", 1), ("saving", 0)])
def test_a_rank_that_does_not_come_back_from_a_callback_or_a_file_says_where_it_is(doing, rank, tmp_path):
    found = survivors_error(training.away, 3.0, doing, tmp_path / "last.safetensors")
    assert found["error"] == "PeerStalled" and found["rank"] == rank
    assert f"and it is {doing}" in found["text"] and "in sleep" in found["text"], found["text"]


def test_a_sample_of_random_kills_ends_with_the_undisturbed_parameters():
    assert "(2 kills at random)" in kill_ranks("--kills", 2, "--within", 0, "--each", 2)


@needs_failpoints
def test_a_sample_of_kills_within_updates_ends_with_the_undisturbed_parameters(library):  # noqa: F811
    assert "(3 kills inside updates)" in kill_ranks("--kills", 0, "--within", 3, "--each", 3, "--library", library.parent)
