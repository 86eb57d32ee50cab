"""The meeting of ranks: each gets what all have brought; what does not belong there is refused, within a second."""

import contextlib
import hmac
import os
import pickle
import secrets
import socket
import tempfile
import threading
import time

import pytest

import gradring as gr
from gradring.launch import hub
from gradring.launch.channel import CHALLENGE_BYTES, receive, send, wait_for_welcome
from gradring.launch.ended import Ended
from gradring.launch.messages import compose
from loader.resources import descriptors, wait_until
from patience import promised

from .worlds import Served, bring, in_threads, join


def names(fds):
    return [os.readlink(f"/proc/self/fd/{fd}").removeprefix("/memfd:").removesuffix(" (deleted)") for fd in fds]


@pytest.mark.parametrize("size", [2, 3, 70])
def test_every_rank_gets_what_all_have_brought(size):
    before = descriptors()
    with Served(size) as served:
        links = [served.link() for _ in range(size)]
        worlds = in_threads(*(lambda rank=rank: join(links[rank], rank, size) for rank in range(size)))
        for rank, world in enumerate(worlds):
            assert (world.rank, world.size) == (rank, size)
            assert names(world.data_fds) == [f"data of {peer}" for peer in range(size)]
            assert names([world.segment_fd]) == ["control of 0"]
            assert all("pidfd" in name for name in names(world.pidfds))
            world.close()
        for link in links:
            link.close()
    del link, world, worlds
    assert descriptors() <= before


def test_a_death_before_the_meeting_is_told_with_its_signal():
    with Served(3, ended=lambda rank: Ended(signal=9) if rank == 2 else None) as served:
        begin = time.monotonic()
        links = [served.link(), served.link()]
        errors = in_threads(*(lambda r=r: join(links[r], r, 3) for r in range(2)))
    for error in errors:
        assert isinstance(error, gr.PeerDied) and error.rank == 2 and error.signal == 9
        assert "rank 2 was killed by SIGKILL before it joined" in str(error)
    assert time.monotonic() - begin < promised(1.0)


def test_who_is_missing_at_the_deadline_is_named():
    why = "rank 1 of 3 and 1 other rank have not joined within 0.2 s"
    with Served(3) as served, pytest.raises(gr.PeerStalled, match=why):
        join(served.link(), 0, 3, seconds=0.2)


def test_how_a_rank_ended_is_told():
    ended = {}
    with Served(2, ended=ended.get) as served:
        links = [served.link(), served.link()]
        first, second = in_threads(*(lambda r=r: join(links[r], r, 2) for r in range(2)))
        assert first.signal_of(1) is None  # the rank lives, so after half a second its end is still unknown
        ended[1] = Ended(signal=15)
        assert first.end_of(1) == Ended(signal=15) and first.signal_of(1) == 15
        ended[0] = Ended(code=7)
        assert second.end_of(0) == Ended(code=7) and second.signal_of(0) is None
        first.close(), second.close()


@pytest.mark.parametrize(
    "change, why",
    [
        ({"size": 3}, "rank 1 says that there are 3 ranks, and there are 2"),
        ({"generation": 4}, "rank 1 is of generation 4, and this is generation 5"),
        ({"rank": 0}, "rank 0 has joined already"),
        ({"brought": []}, "rank 1 has brought 0 descriptors; 2 were expected"),
    ],
    ids=["size", "generation", "rank", "nothing"],
)
def test_what_contradicts_the_world_is_refused_by_name(change, why):
    with Served(2, generation=5) as served:
        other = served.link()
        first = bring(0)
        in_threads(lambda: join(other, 0, 2, generation=5, seconds=0.2, brought=first))
        arguments = {"rank": 1, "size": 2, "generation": 5, **change}
        begin = time.monotonic()
        with pytest.raises(gr.GradringError, match=why):
            join(served.link(), **arguments)
        assert time.monotonic() - begin < promised(1.0)
        assert why in served.hub.refused[-1]


@pytest.mark.parametrize("at, what", [(0, "in place of a pidfd"), (1, "in place of anonymous memory")])
def test_descriptors_of_another_kind_are_refused(at, what, tmp_path):
    brought = bring(1)
    brought[at].close()
    brought[at].fd = os.open(tmp_path, os.O_RDONLY)
    with Served(2) as served, pytest.raises(gr.GradringError, match=what):
        join(served.link(), 1, 2, brought=brought)


def refused(link):
    """Whether the other end closes within a second; what it says until then is no welcome."""
    begin = time.monotonic()
    link.settimeout(60.0)
    with contextlib.suppress(ConnectionError):
        while receive(link)[0]:
            pass
    return time.monotonic() - begin < promised(1.0)


@pytest.mark.parametrize(
    "data",
    [secrets.token_bytes(64), b"\0", secrets.token_bytes(4096), b"GET / HTTP/1.1\r\n\r\n", pickle.dumps(os.getcwd)],
    ids=["64", "1", "4096", "http", "pickle"],
)
def test_random_bytes_are_refused_before_the_handshake(data):
    with Served(2) as served:
        link = served.link()
        receive(link)  # the challenge
        send(link, data)
        assert refused(link)
        assert served.hub.refused[-1] == "a wrong key"


@pytest.mark.parametrize(
    "data",
    [b"{}", b"[" * 4000, secrets.token_bytes(100), b"x" * 5000, b'{"say":"world"}'],
    ids=["object", "nested", "random", "large", "unknown"],
)
def test_random_bytes_of_a_member_are_refused_too(data):
    from gradring.launch.channel import prove

    with Served(2) as served:
        link = served.link()
        prove(link, b"k" * 32)
        send(link, data)
        assert refused(link)
        assert served.hub.refused


def test_a_message_that_is_not_for_the_hub_is_refused():
    from gradring.launch.channel import prove

    with Served(2) as served:
        link = served.link()
        prove(link, b"k" * 32)
        send(link, compose("peers", first=0, count=1))
        assert refused(link)


def test_a_rank_with_a_wrong_key_is_refused():
    with Served(2) as served:
        begin = time.monotonic()
        with pytest.raises(PermissionError, match="refused this key"):
            join(served.link(), 0, 2, key=b"x" * 32)
        assert time.monotonic() - begin < promised(1.0)


@pytest.mark.parametrize("how", ["another key", "the rank's own proof", "random bytes"])
def test_a_hub_that_does_not_know_the_key_is_refused(how):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    key, challenge = secrets.token_bytes(32), secrets.token_bytes(CHALLENGE_BYTES)

    def pretend():
        send(theirs, challenge)
        answer = receive(theirs)[0]
        own = answer[:CHALLENGE_BYTES]
        other = hmac.digest(b"x" * 32, b"hub" + own + challenge, "sha256")
        proofs = {"another key": other, "the rank's own proof": answer[CHALLENGE_BYTES:]}
        send(theirs, proofs.get(how) or secrets.token_bytes(32))

    with ours, theirs:
        thread = threading.Thread(target=pretend)
        thread.start()
        begin = time.monotonic()
        with pytest.raises(PermissionError, match="the other end does not know the key"):
            wait_for_welcome(ours, key, begin + 20)
        assert time.monotonic() - begin < promised(1.0)
        thread.join()


def test_a_listener_drops_who_is_silent(tmp_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with Served(2, listener=listener) as served, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(str(tmp_path / "s"))
        receive(link)
        begin = time.monotonic()
        link.settimeout(60.0)
        assert receive(link)[0] == b""
        assert time.monotonic() - begin < promised(1.5)  # a second of patience, and an answer
        assert "silent" in served.hub.refused[-1]


def test_a_listener_keeps_a_bounded_number_of_silent_connections(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_HANDSHAKE_SECONDS", 60.0)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(Served(2, listener=listener))

        def connect():
            link = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            link.connect(str(tmp_path / "s"))
            link.settimeout(30.0)
            return link, receive(link)[0]

        silent = [connect() for _ in range(hub._MOST_STRANGERS)]
        assert all(len(challenge) == CHALLENGE_BYTES for _, challenge in silent)
        assert connect()[1] == b""
        assert "too many" in served.hub.refused[-1]
        silent[0][0].close()  # now there is room again
        wait_until(lambda: len(served.hub._peers) < hub._MOST_STRANGERS)
        assert len(connect()[1]) == CHALLENGE_BYTES


def test_a_peer_of_another_user_is_refused(tmp_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    # The hub takes itself for another user's: so this process is a foreign one.
    with (
        Served(2, listener=listener, uid=os.geteuid() + 1) as served,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link,
    ):
        link.connect(str(tmp_path / "s"))
        assert refused(link)
        assert served.hub.refused[-1] == "a process of another user"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_process_of_another_user_is_refused():
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "s")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link,
        ):
            listener.bind(path)
            os.chmod(path, 0o777)  # so that the uid alone keeps it out
            listener.listen()
            link.settimeout(5)
            with Served(2, listener=listener) as served:
                child = os.fork()
                if child == 0:
                    heard = b"nobody"
                    try:
                        os.setgroups([])
                        os.setgid(65534)
                        os.setuid(65534)
                        link.connect(path)
                        heard = link.recv(4096)
                    except ConnectionError:
                        heard = b""
                    finally:
                        os._exit(len(heard) > 0)
                _, status = os.waitpid(child, 0)
                assert os.waitstatus_to_exitcode(status) == 0, "it was sent something, or was left waiting"
                assert served.hub.refused[-1] == "a process of another user"


def test_a_flood_of_strangers_does_not_keep_members_out(tmp_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "s"))
    listener.listen(256)

    def connect():
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.connect(str(tmp_path / "s"))
        return link

    with Served(2, listener=listener) as served:
        members = [connect() for _ in range(2)]
        strangers = [connect() for _ in range(100)]
        for link in strangers:
            with contextlib.suppress(OSError):  # the listener may have shut it out already
                link.send(secrets.token_bytes(32))
        worlds = in_threads(*(lambda r=r: join(members[r], r, 2) for r in range(2)))
        assert [world.rank for world in worlds] == [0, 1]
        assert served.hub.refused
        for world in worlds:
            world.close()
        for link in [*members, *strangers]:
            link.close()
