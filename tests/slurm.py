"""A SLURM of its own on loopback: munge, the controller and three node daemons in one folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
from clusters import until

NODES = ("node1", "node2", "node3")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
_CONF = """\
ClusterName=altrelu
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
# The second is how long a job that was requeued waits, 120 seconds by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2
PropagateResourceLimits=NONE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


class Slurm:
    """Three nodes of one core each; all that runs in it ends with the block."""

    def __enter__(self):
        missing = [program for program in _PROGRAMS if shutil.which(program, path=_path()) is None]
        if missing:
            pytest.skip(f"needs SLURM (slurmctld, slurmd, slurm-client, munge): no {missing[0]}")
        # Short, since sockets lie in it; munge wants all to reach its socket.
        self.folder = Path(tempfile.mkdtemp(prefix="altrelu-slurm-"))
        self.folder.chmod(0o755)
        self._daemons = []
        with contextlib.ExitStack() as stack:
            stack.callback(self.__exit__)
            self._configure()
            self._start("munged", "-F", *self._munge())
            until((self.folder / "munge.socket").exists, "munge's socket")
            self._start("slurmctld", "-D")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node)
            until(lambda: self.run("sinfo", "-h", "-o", "%t %D", check=False) == "idle 3", "nodes")
            stack.pop_all()
        return self

    def __exit__(self, *_):
        """End jobs first, then the daemons, then whatever still belongs to this cluster."""
        conf = self.folder / "slurm.conf"
        if conf.exists() and (self.folder / "slurmctld.log").exists():
            with contextlib.suppress(subprocess.SubprocessError, AssertionError):
                user = f"--user={getpass.getuser()}"
                self.run("scancel", user, check=False)
                until(lambda: not self.run("squeue", "-h", check=False), "jobs that end", 30)
        for number in (signal.SIGTERM, signal.SIGKILL):
            ours = list(self._processes())
            for process in ours:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            psutil.wait_procs(ours, timeout=15)
        for daemon in self._daemons:
            daemon.wait(15)
        assert not list(self._processes())
        shutil.rmtree(self.folder)

    @property
    def environment(self):
        """Of whoever talks to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def run(self, *command, check=True, env=None):
        """What a command says."""
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=60,
            env=os.environ | self.environment | (env or {}), cwd=self.folder,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number):
        """What SLURM knows of a job."""
        told = self.run("scontrol", "show", "job", number, "--oneliner")
        return dict(re.findall(r"(\S+?)=(\S*)", told))

    def tell(self):
        """The daemons' logs, for when something fails."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log")
        )

    def _configure(self):
        host = socket.gethostname().partition(".")[0]
        with contextlib.ExitStack() as stack:  # free ones, all at a time
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "1234"]
            port, *ports = (each.getsockname()[1] for each in sockets)
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={own} "
            "CPUs=1 RealMemory=4000 State=UNKNOWN"
            for node, own in zip(NODES, ports, strict=True)
        ]
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        (self.folder / "slurm.conf").write_text(
            _CONF.format(
                host=host,
                port=port,
                user=getpass.getuser(),
                folder=self.folder,
                nodes="\n".join(nodes),
            )
        )
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))

    def _munge(self):
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        return [f"--{option}={self.folder}/munge.{file}" for option, file in files.items()]

    def _start(self, *command):
        name = command[0] if command[0] != "slurmd" else f"slurmd-{command[-1]}"
        with (self.folder / f"{name}.log").open("w") as log:
            daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=os.environ | self.environment, start_new_session=True,
            )  # fmt: skip
        self._daemons.append(daemon)

    def _processes(self):
        """Daemons, steps and jobs, wherever they went: all were given the same SLURM_CONF."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and self.environment["SLURM_CONF"] in (
                    process.environ().get("SLURM_CONF", "")
                ):
                    yield process


def _path():
    """Daemons lie where only root looks."""
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
