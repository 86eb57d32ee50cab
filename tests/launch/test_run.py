"""`gradring run`: what a user sees of it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from loader.resources import is_dead, shared_names, wait_until
from patience import promised

from .scripts import lines, run, started, write


def test_ranks_meet_and_have_their_arguments(tmp_path):
    script = write(
        tmp_path, "w = meet(); say(f'{w.rank} {w.size} {w.generation} {len(w.data_fds)} {sys.argv[1:]} {__name__}')"
    )
    done = run("-n", 3, script, "--epochs", "2", "-n")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"{r} 3 0 3 ['--epochs', '2', '-n'] __main__" for r in range(3)]
    assert done.stderr == ""


def test_a_script_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("value = 7")
    script = write(tmp_path, "import beside; say(str(beside.value) + os.path.basename(__file__))")
    assert run("-n", 1, script).stdout == "7script.py\n"


def test_modules_run_too(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "train.py").write_text(
        "import os, sys; os.write(1, f'{__name__} {__package__} {sys.argv[1:]}\\n'.encode())"  # in one piece
    )
    done = run("-n", 2, "-m", "package.train", "a", cwd=tmp_path)
    assert done.stdout == "__main__ package ['a']\n" * 2, done.stderr


def test_what_is_piped_in_goes_to_rank_0(tmp_path):
    script = write(tmp_path, "w = meet(); say(f'{w.rank} {sys.stdin.read()!r}')")
    assert sorted(run("-n", 2, script, input="hello").stdout.splitlines()) == ["0 'hello'", "1 ''"]


def test_meeting_again_is_another_meeting(tmp_path):
    script = write(tmp_path, "a = meet(); b = meet(); say(f'{a.rank} {b.rank} {a.segment_fd != b.segment_fd}')")
    assert sorted(run("-n", 2, script).stdout.splitlines()) == ["0 0 True", "1 1 True"]


def test_the_first_failing_ranks_traceback_is_printed_once(tmp_path):
    script = write(
        tmp_path,
        """
        import gradring as gr
        w = meet()
        if w.rank == 1:
            raise ValueError("a bad number")
        ended = wait_for(w, 1)
        raise gr.PeerDied(f"rank 1 {ended}")
        """,
    )
    done = run("-n", 3, script)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1 and done.stderr.count("ValueError: a bad number") == 1
    assert "rank 1 of 3 ended with exit code 1; its traceback:" in done.stderr
    assert "runpy" not in done.stderr and "gradring/launch" not in done.stderr
    for rank in (0, 2):
        assert (
            f"rank {rank} ended with exit code 81: gradring.errors.PeerDied: rank 1 ended with exit code 1"
            in done.stderr
        )


@pytest.mark.parametrize("error, code", [("PeerDied", 81), ("PeerStalled", 82), ("CollectiveMismatch", 83)])
def test_exit_codes_say_why(tmp_path, error, code):
    script = write(tmp_path, f"import gradring as gr\nif meet().rank == 0: raise gr.{error}('why')")
    done = run("-n", 2, script)
    assert done.returncode == code and f"{error}: why" in done.stderr


@pytest.mark.parametrize("body, code", [("sys.exit(7)", 7), ("sys.exit('no')", 1), ("sys.exit(0)", 0), ("1/0", 1)])
def test_the_exit_code_is_the_scripts(tmp_path, body, code):
    assert run("-n", 2, write(tmp_path, body)).returncode == code


def test_a_killed_rank_is_named_with_its_signal(tmp_path):
    script = write(
        tmp_path,
        """
        w = meet()
        if w.rank == 0: os.kill(os.getpid(), signal.SIGSEGV)
        say(str(wait_for(w, 0)) + f" {w.signal_of(0)}")
        """,
    )
    done = run("-n", 2, script)
    assert done.stdout == "was killed by SIGSEGV 11\n"
    assert done.returncode == 128 + 11 and "rank 0 of 2 was killed by SIGSEGV" in done.stderr


def test_ranks_that_do_not_end_by_themselves_are_ended(tmp_path):
    script = write(
        tmp_path,
        """
        w = meet()
        if w.rank == 0: sys.exit(3)
        if w.rank == 2: signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
        """,
    )
    begin = time.monotonic()
    done = run("-n", 3, script)
    assert done.returncode == 3
    assert "rank 1 was killed by SIGTERM" in done.stderr and "rank 2 was killed by SIGKILL" in done.stderr
    assert time.monotonic() - begin < promised(10.0)  # five seconds of grace, the ranks' start and end


def test_a_failed_rank_ends_although_it_has_threads(tmp_path):
    script = write(
        tmp_path,
        """
        import threading
        w = meet()
        if w.rank == 0:
            threading.Thread(target=time.sleep, args=(1000,)).start()
            raise ValueError("ended all the same")
        say(str(wait_for(w, 0)))
        """,
    )
    done = run("-n", 2, script, seconds=60)
    assert done.stdout == "ended with exit code 1\n" and done.returncode == 1


def test_a_rank_that_never_comes_is_a_death(tmp_path):
    script = write(
        tmp_path,
        """
        from gradring.launch.inherited import inherited
        if inherited().rank == 1: sys.exit(0)
        meet()
        """,
    )
    done = run("-n", 2, script)
    assert done.returncode == 81
    assert "PeerDied: [init] rank 1 ended with exit code 0 before it joined" in done.stderr


def test_restarts_have_new_generations_and_end(tmp_path):
    script = write(tmp_path, "w = meet(); say(f'{w.rank} {w.generation}'); sys.exit(5 if w.generation < 2 else 0)")
    done = run("-n", 2, "--max-restarts", 5, script)
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == sorted(f"{r} {g}" for r in range(2) for g in range(3))
    assert "restarting all ranks (2 of 5)" in done.stderr
    done = run("-n", 2, "--max-restarts", 1, write(tmp_path, "meet(); sys.exit(6)"))
    assert done.returncode == 6 and done.stderr.count("restarting") == 1


WAITS = """
w = meet()
try:
    say(f"ready {w.rank}")
    time.sleep(1000)
except KeyboardInterrupt:
    say(f"interrupted {w.rank}")
    raise
"""


def test_ctrl_c_ends_all_with_one_keyboard_interrupt(tmp_path):
    with started("-n", 2, write(tmp_path, WAITS)) as process:
        assert lines(process, 2) == ["ready 0", "ready 1"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert sorted(out.splitlines()) == ["interrupted 0", "interrupted 1"]
    assert err.count("KeyboardInterrupt") == 1 + err.count("except KeyboardInterrupt")
    assert err.count("Traceback") == 1


STUBBORN = """
w = meet()
signal.signal(signal.SIGINT, lambda *_: say("heard"))
signal.signal(signal.SIGTERM, lambda *_: say("heard"))
say(f"ready {os.getpid()}")
while True: time.sleep(1000)
"""


def test_a_second_ctrl_c_kills_at_once(tmp_path):
    with started("-n", 2, write(tmp_path, STUBBORN)) as process:
        pids = [int(line.split()[1]) for line in lines(process, 2)]
        process.send_signal(signal.SIGINT)
        assert lines(process, 2) == ["heard", "heard"]
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - begin < promised(1.0)
    assert all(map(is_dead, pids))


def test_sigterm_reaches_the_ranks(tmp_path):
    script = write(
        tmp_path,
        """
        w = meet()
        def saved(*_):
            say(f"saved {w.rank}")
            sys.exit(0)
        signal.signal(signal.SIGTERM, saved)
        say("ready")
        time.sleep(1000)
        """,
    )
    with started("-n", 2, script) as process:
        lines(process, 2)
        process.terminate()
        assert lines(process, 2) == ["saved 0", "saved 1"]
        assert process.wait(timeout=30) == 0
    with started("-n", 2, write(tmp_path, WAITS)) as process:
        lines(process, 2)
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    script = write(tmp_path, "w = meet(); say('ready'); time.sleep(1); say('done')")
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from gradring.cli import main; "
        f"sys.exit(main(['run', '-n', '2', {str(script)!r}]))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert lines(process, 2) == ["ready"] * 2
        process.send_signal(signal.SIGHUP)
        assert lines(process, 2) == ["done"] * 2
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_ranks_die_with_their_launcher(tmp_path, number):
    with started("-n", 2, write(tmp_path, STUBBORN)) as process:
        pids = [int(line.split()[1]) for line in lines(process, 2)]
        os.kill(process.pid, number)
        begin = time.monotonic()
        assert wait_until(lambda: all(map(is_dead, pids)))
        assert time.monotonic() - begin < promised(1.0)


def test_no_process_and_no_name_is_left(tmp_path):
    before = shared_names(), set(os.listdir("/tmp"))
    script = write(tmp_path, "w = meet(); say(str(os.getpid())); sys.exit(w.rank)")
    done = run("-n", 2, script)
    assert all(map(is_dead, map(int, done.stdout.split())))
    assert shared_names() <= before[0]
    assert not [name for name in set(os.listdir("/tmp")) - before[1] if "gradring" in name]


def test_a_child_process_of_a_rank_is_no_rank(tmp_path):
    script = write(
        tmp_path,
        """
        import subprocess
        w = meet()
        code = "from gradring.launch import rendezvous; print(rendezvous(5.0))"
        say(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
        pid = os.fork()
        if pid == 0:
            say(str(meet(5.0)))
            os._exit(0)
        os.waitpid(pid, 0)
        """,
    )
    assert run("-n", 2, script).stdout.splitlines() == ["None"] * 4


def test_processors_are_divided_and_two_jobs_share_none(tmp_path):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one processor")
    script = write(
        tmp_path,
        """
        w = meet()
        say(",".join(map(str, sorted(os.sched_getaffinity(0)))) + " " + os.environ["OMP_NUM_THREADS"])
        time.sleep(float(sys.argv[1]))
        """,
    )
    everything = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with started("-n", 2, script, 1000, env=environment) as first:
        got = [line.split() for line in lines(first, 2)]
        if got[0][0] == everything:
            pytest.skip("another job holds processors")
        parts = [set(part.split(",")) for part, _ in got]
        assert not parts[0] & parts[1] and parts[0] | parts[1] == set(everything.split(","))
        assert all(int(threads) == len(os.sched_getaffinity(0)) // 2 for _, threads in got)
        second = run("-n", 2, script, 0, env=environment)
        assert {line.split()[0] for line in second.stdout.splitlines()} == {everything}
        assert "other jobs have pinned their ranks" in second.stderr
    third = run("-n", 2, "--bind", "none", script, 0, env=environment)
    assert {line.split()[0] for line in third.stdout.splitlines()} == {everything}
    assert third.stderr == ""


def test_more_ranks_than_processors(tmp_path):
    ranks = len(os.sched_getaffinity(0)) + 2
    done = run("-n", ranks, write(tmp_path, "say(str(meet().rank))"))
    assert sorted(map(int, done.stdout.split())) == list(range(ranks)) and done.stderr == ""


@pytest.mark.parametrize(
    "arguments, why",
    [
        (["-n", "0", __file__], "-n must be from 1 to 256, got 0"),
        (["-n", "257", __file__], "-n must be from 1 to 256, got 257"),
        (["-n", "1", "--max-restarts", "-1", __file__], "--max-restarts must not be negative, got -1"),
        (["-n", "1", "nowhere.py"], "nowhere.py is no file; for a module, say -m nowhere.py"),
    ],
)
def test_bad_options(arguments, why, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1 and why in done.stderr


def test_a_rank_dies_if_its_launcher_had_gone_before_it_began():
    # As the main function of a rank sees it: its parent is another process than the one that started it.
    code = "from gradring.launch.rank import _die_with; _die_with(1 << 30); print('lives')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 137 and done.stdout == ""
