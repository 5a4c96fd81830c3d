"""A throw-away SLURM of one machine: own configuration, ports, key and folders; needs no root, no systemd and no network.

Debian: `apt-get install slurm-wlm munge`. `Cluster` starts munged, slurmctld and slurmd, and ends them and all that they started.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "squeue", "sinfo")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])  # where Debian puts daemons, and users do not look
PR_SET_PDEATHSIG = 1
CPUS = 4
"""What the node claims to have: four elements run at once, whatever the machine has."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
SETTINGS = """\
ClusterName=flowkit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=30
SchedulerParameters=sched_interval=5,bf_interval=5
KillWait=10
MinJobAge=3600
OverTimeLimit=0
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000
PartitionName=main Nodes=node Default=YES MaxTime=INFINITE State=UP
"""


def missing_program() -> str | None:
    """The first program that a cluster needs and that is not here."""
    return next((name for name in PROGRAMS if shutil.which(name, path=PATH) is None), None)


def wait_until(what: str, holds: Callable[[], bool], seconds: float = 300) -> None:
    """Ask until something holds; what is waited for, and how long, tells the time that the slowest machine may take."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.3)


class Cluster:
    """SLURM on this machine, for as long as the `with` block lasts."""

    def __enter__(self) -> Cluster:
        self.folder = Path(tempfile.mkdtemp(prefix="flowkit-slurm-", dir="/tmp"))  # short: a socket's path has a limit
        self.folder.chmod(0o755)  # munged wants its socket where everybody can reach it
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}
        try:
            self._configure()
            self._start_munge()
            self._start("slurmctld", "-D", "-c")
            self.start_node()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError, AssertionError):
            self.run("scancel", "--me", "--quiet", check=False)
            wait_until("jobs end", lambda: not self.run("squeue", "--noheader", check=False).strip(), 30)
        for name in ("slurmd", "slurmctld", "munged"):
            if name in self._daemons:
                self._end(name, signal.SIGTERM)
        self._kill_steps()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str | Path, check: bool = True, **environment: str) -> str:
        """What one of SLURM's commands says."""
        done = subprocess.run(
            list(map(str, command)),
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def submit(self, *arguments: str | Path, **environment: str) -> str:
        """Number of a job that was just submitted."""
        return self.run("sbatch", "--parsable", *arguments, **environment).strip()

    def job(self, name: str) -> dict[str, str]:
        """What scontrol knows of a job, or of an element of an array (`12_3`); asked again where a busy SLURM gives no answer."""
        text = ""
        while not text:
            text = self.run("scontrol", "--oneliner", "show", "job", name, check=False)
        return dict(part.split("=", 1) for part in text.split() if "=" in part)

    def state(self, name: str) -> str:
        """State of a job or an element."""
        return self.job(name)["JobState"]

    def wait(self, name: str, *states: str, seconds: float = 300) -> None:
        """Wait until a job or an element is in one of these states, and no longer than until it has ended in another."""
        wait_until(f"{name} in {states}", lambda: self.state(name) in (*states, *ENDED), seconds)
        assert self.state(name) in states, self.job(name)

    def start_node(self) -> None:
        """Start the node's daemon, and wait until jobs can run."""
        self._start("slurmd", "-D", "-N", "node")
        wait_until(
            "the node is up",
            lambda: (
                self.run("sinfo", "--noheader", "--format=%T", check=False).strip() in ("idle", "mixed", "allocated")
            ),
            60,
        )

    def lose_node(self) -> None:
        """Everything on the node dies at once, as if the power was cut; the controller finds out by itself."""
        self._end("slurmd", signal.SIGKILL)
        self._kill_steps()

    def _configure(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        ports = _free_ports()
        settings = SETTINGS.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=next(ports),
            node_port=next(ports),
            user=getpass.getuser(),
            folder=self.folder,
            cpus=CPUS,
        )
        (self.folder / "slurm.conf").write_text(settings)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        places = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._start("munged", "--foreground", f"--key-file={key}", *places)
        wait_until("munge answers", (self.folder / "munge.socket").exists, 60)

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("ab") as output:
            self._daemons[program] = subprocess.Popen(
                [program, *arguments],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_the_parent,
            )

    def _end(self, name: str, how: signal.Signals) -> None:
        daemon = self._daemons.pop(name)
        daemon.send_signal(how)
        try:
            daemon.wait(timeout=30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _kill_steps(self) -> None:
        """Kill every process that has this cluster's configuration in its environment: step daemons and what jobs started."""
        for pid, environment in _processes():
            if environment.get("SLURM_CONF") == str(self.folder / "slurm.conf") and pid not in self._own():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _own(self) -> set[int]:
        return {daemon.pid for daemon in self._daemons.values()}


def _die_with_the_parent() -> None:
    """Whoever kills the tests shall not leave daemons behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def processes_of(**wanted: str) -> list[int]:
    """Processes of this user that have these variables in their environment."""
    return [
        pid
        for pid, environment in _processes()
        if all(environment.get(name) == value for name, value in wanted.items())
    ]


def _processes() -> Iterator[tuple[int, Mapping[str, str]]]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            parts = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        yield int(path.parent.name), dict(part.split("=", 1) for part in parts if "=" in part)


def _free_ports() -> Iterator[int]:
    """Ports that nobody listens on, below those that systems give to clients: such a one could connect to itself."""
    for port in random.sample(range(20_000, 32_000), 12_000):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            yield port
