"""A SLURM of this test's own: munged, slurmctld and slurmd with one node, in a temporary folder and on free ports."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sinfo")

CONFIGURATION = """\
ClusterName=gradring
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


def missing():
    """Why no cluster can be started here, or None."""
    absent = [name for name in PROGRAMS if find(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    return "slurmd needs root" if os.geteuid() else None


def find(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def cluster(folder):
    """The environment of commands that use the cluster. It ends with the block."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    text = CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2), cpus=len(os.sched_getaffinity(0)))
    (folder / "slurm.conf").write_text(text)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    paths = {"key-file": "key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "seed"}
    munged = ["munged", "--force", "--foreground", *(f"--{option}={folder / name}" for option, name in paths.items())]
    with ExitStack() as stack:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            out = stack.enter_context(open(folder / f"{command[0]}.out", "wb"))
            daemon = subprocess.Popen([find(command[0]), *command[1:]], env=environment, stdout=out, stderr=out)
            stack.callback(end, daemon)
        wait_until_idle(environment, folder)
        yield environment


def end(daemon):
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def wait_until_idle(environment, folder):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = subprocess.run([find("sinfo"), "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
        if "idle" in seen.stdout:
            return
        time.sleep(0.2)
    logs = "\n".join(path.read_text(errors="replace")[-1000:] for path in sorted(folder.glob("*.out")))
    raise AssertionError(f"the node has not become idle: {seen.stdout}{seen.stderr}\n{logs}")
