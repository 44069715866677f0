"""A real Slurm on this machine: munged, slurmctld and a slurmd for each of several node names, in a folder of its own.

apt-get install slurmctld slurmd slurm-client munge
python tests/support/slurm_cluster.py /tmp/slurm        # until Ctrl-C; or /tmp/slurm NODES CORES GPUS; then, elsewhere:
export SLURM_CONF=/tmp/slurm/slurm.conf
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

LONGEST = "spool-node9/node9_999.4294967291"
"""The socket of a job's script, as slurmstepd names it in a node's folder."""
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,preempt_send_user_signal,bf_continue
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
SlurmdParameters=config_overrides
GresTypes=gpu
InactiveLimit=0
KillWait=10
MinJobAge=300
OverTimeLimit=0
{nodes}
PartitionName=work Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


class Cluster:
    """Its daemons are children of this process, which ends them; nodes are called node1, node2, ...

    Cores may be more than this machine has, and GPUs are only claimed.
    """

    def __init__(self, folder: Path, nodes: int = 2, cores: int = 2, gpus: int = 0) -> None:
        self.folder, self.nodes = folder, [f"node{n + 1}" for n in range(nodes)]
        self._cores, self._gpus = cores, gpus
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """With which commands of Slurm find it."""
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def start(self) -> "Cluster":
        """Until all nodes are idle. RuntimeError with the reason if that cannot be had here."""
        missing = [name for name in NEEDED if shutil.which(name, path=self.environment["PATH"]) is None]
        if missing:
            raise RuntimeError(f"{missing[0]} is not installed: apt-get install slurmctld slurmd slurm-client munge")
        if sys.platform != "linux" or os.getuid() != 0:
            raise RuntimeError("a Slurm of several nodes on one machine is started by root, on Linux")
        if len(os.fsencode(self.folder / LONGEST)) > 107:
            # Linux names a socket in 108 bytes, the last one empty; slurmd takes jobs all the same, and none of them ever begins.
            raise RuntimeError(f"{self.folder} is too long a name for the sockets in it: give a shorter one")
        (self.folder / "state").mkdir(parents=True)
        os.chmod(self.folder, 0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        os.chmod(key, 0o400)
        ports, host = free_ports(1 + len(self.nodes)), socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self._cores} "
            f"RealMemory=16000{f' Gres=gpu:{self._gpus}' if self._gpus else ''} State=UNKNOWN"
            for name, port in zip(self.nodes, ports[1:], strict=True)
        )
        text = CONF.format(host=host, user="root", folder=self.folder, ports=ports, nodes=nodes)
        (self.folder / "slurm.conf").write_text(text)
        claimed = f"NodeName={','.join(self.nodes)} Name=gpu File=/dev/tty[1-{self._gpus}]\n" if self._gpus else ""
        (self.folder / "gres.conf").write_text(claimed)
        self._run(
            "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}",
            f"--log-file={self.folder}/munged.log", f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed",
        )  # fmt: skip
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._run("slurmctld", "-D", "-i", "-c")
        for node in self.nodes:
            self.start_node(node)
        self._until(lambda: self.idle() == len(self.nodes), "slurmctld and slurmd")
        return self

    def start_node(self, node: str) -> None:
        """A node, again where it was killed."""
        (self.folder / f"spool-{node}").mkdir(exist_ok=True)
        self._run("slurmd", "-D", "-N", node, key=node)

    def kill_node(self, node: str) -> None:
        """As if its power were cut: slurmd, what watches over jobs, and the jobs."""
        numbers = [line.split()[0] for line in self.squeue("%A", f"--nodelist={node}", "--states=RUNNING")]
        self._running.pop(node).kill()
        for place in Path("/proc").glob("[0-9]*"):
            try:
                named, around = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
            except OSError:
                continue
            watches = any(named.startswith(f"slurmstepd: [{number}.".encode()) for number in numbers)
            runs = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.folder}/slurm.conf".encode()}
            if watches or runs <= {*around.split(b"\0")}:
                with suppress(ProcessLookupError):
                    os.kill(int(place.name), signal.SIGKILL)

    def command(self, *words: object) -> str:
        """What a command of Slurm answers."""
        done = subprocess.run([*map(str, words)], env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def squeue(self, fields: str = "%j %T %N", *words: str) -> list[str]:
        """Jobs that wait or run, a line each."""
        return self.command("squeue", "--noheader", f"--format={fields}", *words).splitlines()

    def idle(self) -> int:
        """Nodes that take jobs."""
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%N %t"], env=self.environment, capture_output=True, text=True
        )
        return len(
            {line.split()[0] for line in done.stdout.splitlines() if line.split()[1] in ("idle", "mix", "alloc")}
        )

    def stop(self) -> None:
        """End all jobs and daemons."""
        if "slurmctld" in self._running:
            subprocess.run(["scancel", "--user=root"], env=self.environment, capture_output=True)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and self._has_jobs():
                time.sleep(0.2)
        for process in reversed(self._running.values()):
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _has_jobs(self) -> bool:
        done = subprocess.run(["squeue", "--noheader"], env=self.environment, capture_output=True, text=True)
        return bool(done.stdout.strip())

    def _run(self, *words: str, key: str = "") -> None:
        log = open(self.folder / f"{key or words[0]}.out", "ab")  # noqa: SIM115, the daemon's own
        with log:
            self._running[key or words[0]] = subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _until(self, true, what: str) -> None:
        deadline = time.monotonic() + 60
        while not true():
            dead = [name for name, process in self._running.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                words = "".join(path.read_text(errors="replace")[-600:] for path in sorted(self.folder.glob("*.out")))
                self.stop()
                raise RuntimeError(f"{what} did not start here ({', '.join(dead) or 'no answer'}): {words}")
            time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        with closing(each):
            pass
    return ports


if __name__ == "__main__":
    cluster = Cluster(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:])).start()
    print(f"export SLURM_CONF={cluster.folder}/slurm.conf", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        cluster.stop()
