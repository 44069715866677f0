"""The processes of a run on several devices: where each sits, how those of one machine are started, and what they tell each
other beside the shares of a batch.

The first of them is the run: it has the folder, logs, watches, saves, predicts and scores. The others take the same steps and
nothing else. Before every step all agree whether to take it, so that a signal to any of them ends all after the same step, and a
process that has died is missed there. That, and the weights that all begin with, goes through the processor (gloo), so that a
GPU never waits for it.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import IO, Any, NamedTuple

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from attent_kit.engine.run.dealt import Dealer
from attent_kit.errors import AttentKitError, ConfigError, ProcessLost, RunError

HELPER = "attent_kit.cli.rank"
"""Module that the other processes of a machine run."""
TIMEOUT = timedelta(minutes=30)
"""After which a process that says nothing counts as lost: longer than a snapshot takes, for which the others wait. One that has
died is missed at once."""
TO_MEET = timedelta(minutes=3)
"""In which all processes must have begun that something else has started."""
SECONDS_TO_NOTICE = 30.0
"""Between the death of a process and the end of the first one, if that has not noticed by itself: it may wait for a GPU."""
SECONDS_TO_END = 5.0
"""For the others to end once they have nothing to do."""


class Seat(NamedTuple):
    """The place of this process among those of a run."""

    rank: int
    processes: int
    """Processes of the run, on all machines."""
    local: int
    """Its place among those of this machine."""
    here: int
    """Processes of this machine."""
    address: str
    port: int
    """Where the first process listens."""
    starter: str
    """What has started it: torchrun, srun, or attentkit."""


def seat_found(each: int | None, nodes: int | None, environment: Mapping[str, str] = os.environ) -> Seat | None:
    """The seat that torchrun or srun has given to this process; None if it was not started as one of several.

    `each`: devices of a run on one machine, as `--devices-per-run` says; with torchrun, which starts processes for nothing
    else, it may be None. ConfigError if what was started is not what was asked for.
    """
    if "TORCHELASTIC_RUN_ID" in environment and int(environment["WORLD_SIZE"]) > 1:
        count, here = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
        _refuse_other(
            each or here, nodes or count // here, here, count // here, "torchrun", "--nnodes {} --nproc-per-node {}"
        )
        place = int(environment["RANK"]), count, int(environment["LOCAL_RANK"]), here
        return Seat(*place, environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), "torchrun")
    if each is not None and int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        count, machines = int(environment["SLURM_STEP_NUM_TASKS"]), int(environment["SLURM_STEP_NUM_NODES"])
        _refuse_other(each, nodes or machines, count // machines, machines, "srun", "--nodes {} --ntasks-per-node {}")
        place = int(environment["SLURM_PROCID"]), count, int(environment["SLURM_LOCALID"]), each
        first = environment.get("MASTER_ADDR") or _first_node(environment["SLURM_STEP_NODELIST"])
        # Every process of a step knows its number, and no other step of the machine has it.
        number = 100 * int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"])
        return Seat(*place, first, int(environment.get("MASTER_PORT", 15000 + number % 15000)), "srun")
    if (nodes or 1) > 1:
        raise ConfigError(
            f"--nodes {nodes}: a run on several machines is started on each of them by torchrun or srun. Type srun --nodes "
            f"{nodes} --ntasks-per-node {each or 1} before the command, or leave out --nodes."
        )
    return None


def refuse_starter(environment: Mapping[str, str] = os.environ) -> None:
    """ConfigError in a process that torchrun has started as one of several: a comparison starts its own."""
    if "TORCHELASTIC_RUN_ID" in environment and int(environment["WORLD_SIZE"]) > 1:
        raise ConfigError(
            "a comparison starts its processes itself: leave out torchrun, and type --devices-per-run "
            f"{environment['LOCAL_WORLD_SIZE']}."
        )


def _refuse_other(each: int, nodes: int, found: int, machines: int, starter: str, words: str) -> None:
    if (each, nodes) != (found, machines):
        raise ConfigError(
            f"{starter} has started {found} processes on each of {machines} machine{'s' if machines > 1 else ''}, and "
            f"--devices-per-run {each} --nodes {nodes} asks for {each} on each of {nodes}: type {starter} "
            f"{words.format(nodes, each)}."
        )


def _first_node(nodes: str) -> str:
    """ "a7" of "a[7-9,12]", "a7,b1" and "a7"."""
    name, bracket, numbers = nodes.partition(",")[0].partition("[")
    return name + numbers.rstrip("]").partition("-")[0] if bracket else name


def refuse_impossible(kind: str, count: int) -> None:
    """ConfigError if PyTorch cannot train in several processes on devices of this kind."""
    if kind == "mps":
        raise ConfigError(f"--devices-per-run {count}: there is one Metal device. Leave it out, or type --device cpu.")
    backends = {"cuda": dist.is_available() and dist.is_nccl_available(), "cpu": True}
    if sys.platform == "win32" or not dist.is_available() or not dist.is_gloo_available() or not backends[kind]:
        lacking = "not tried on Windows" if sys.platform == "win32" else "not in this PyTorch (gloo, or nccl for GPUs)"
        raise ConfigError(f"--devices-per-run {count}: several processes for one run are {lacking}. Leave it out.")


class ProcessGroup:
    """What the processes of a run do together. A run of one process has one, too."""

    def __init__(self, count: int = 1, seat: Seat | None = None) -> None:
        self.seat = seat or Seat(0, count, 0, count, "127.0.0.1", 0, "attentkit")
        self.rank, self.count = self.seat.rank, self.seat.processes
        self.device = torch.device("cpu")
        self.table = Dealer(self.rank, self.count)
        self.job: dict[str, Any] = {}
        """What processes that this one starts have to know."""
        self._control: Any = None
        self._helpers: list[_Helper] = []
        self._met = False

    @property
    def met(self) -> bool:
        """Whether the others are there."""
        return self._met

    @contextmanager
    def together(self, needed: bool = True) -> Iterator[None]:
        """All processes of the run within the block, started if nobody else has; `needed`: whether there is a step to take.

        ProcessLost, with the last words of the other if they are known, where one is lost.
        """
        if self.count == 1 or not (needed or self._met):
            yield
            return
        threads = torch.get_num_threads()
        try:
            if not self._met:
                self._start(threads)
            yield
        except (RuntimeError, ValueError) as error:
            # Errors of torch.distributed are RuntimeErrors; those of a method are, too.
            if isinstance(error, AttentKitError) or (lost := self._lost(error)) is None:
                raise
            raise lost from error
        finally:
            self._part()
            torch.set_num_threads(threads)

    def meet(self, store: Any = None) -> None:
        """Wait for the others where something else has started all; `store`: where they meet, if not at the seat's address.

        RunError if they do not come.
        """
        seat = self.seat
        try:
            if store is None and seat.starter != "torchrun":  # whose variables say it; it may listen there itself
                store = dist.TCPStore(seat.address, seat.port, self.count, self.rank == 0, TO_MEET)
            self._join(store)
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"process {self.rank + 1} of the {self.count} of this run has not met the others at {seat.address}:{seat.port}: "
                "see what they say, or set MASTER_ADDR to an address of the first machine that all can reach, and MASTER_PORT to "
                "a free port there."
            ) from error

    def agree(self, asked: bool) -> bool:
        """Whether any process is asked to stop; each waits here for the others."""
        if not self._met:
            return asked
        said = torch.tensor(int(asked))
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self._control)
        return bool(said)

    def from_first(self, value: Any) -> Any:
        """What the first process has, in all of them."""
        if not self._met:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, group=self._control, device=torch.device("cpu"))
        return box[0]

    def gate_of_first(self, when: Tensor) -> Tensor:
        """A boolean on the device as the first process has it: the last bits of a loss may differ between GPUs."""
        if not self.table.dealing:
            return when
        said = when.to(torch.uint8)
        dist.broadcast(said, 0)
        return said.bool()

    @contextmanager
    def dealing(self) -> Iterator[None]:
        """A step that all processes take at the same time: networks share its batch."""
        self.table.dealing = self._met
        try:
            yield
        finally:
            self.table.dealing = False

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Gradients become the mean over the processes."""
        if not self.table.dealing:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for p in parameters:
            if p.grad is not None:
                kinds.setdefault(p.grad.dtype, []).append(p.grad)
        for gradients in kinds.values():
            flat = torch.cat([g.reshape(-1) for g in gradients])
            dist.all_reduce(flat)
            flat /= self.count
            for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                g.copy_(part.view(g.shape))

    def _start(self, threads: int) -> None:
        """The other processes of this machine."""
        store = dist.TCPStore("127.0.0.1", 0, self.count, True, TIMEOUT, wait_for_workers=False)
        each = max(1, threads // self.count)
        torch.set_num_threads(each)
        for rank in range(1, self.count):
            seat = self.seat._replace(rank=rank, local=rank, port=store.port)
            self._helpers.append(_Helper({**self.job, "seat": seat, "threads": each}))
        threading.Thread(target=self._watch, args=([*self._helpers],), daemon=True).start()
        self._join(store)

    def _join(self, store: Any = None) -> None:
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.count, timeout=TIMEOUT)
        self._control = dist.new_group(backend="gloo", timeout=TIMEOUT)
        self._met = True

    def _part(self) -> None:
        """Nothing is done together any more."""
        self._met = False
        with suppress(RuntimeError, ValueError, AssertionError):
            dist.destroy_process_group()  # One that still waits for this process sees that it is gone.
        for helper in self._helpers:
            helper.end()
        self._helpers.clear()

    def _lost(self, error: Exception) -> ProcessLost | None:
        """What is to be said of an error that came of the end of another process; None for any other error."""
        # A method's own error is met by all: then it is not the end of another that has to be told.
        words = ("gloo", "nccl", "connection closed", "connection reset", "tcpstore")
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in words):
            return None
        for helper in self._helpers:
            if helper.ended(SECONDS_TO_END) not in (None, 0):
                return self._said_of(helper)
        return ProcessLost(
            f"process {self.rank + 1} of the {self.count} of this run has lost another one: see what that said, and start "
            "the same command again to go on from the last checkpoint."
        )

    def _said_of(self, helper: "_Helper") -> ProcessLost:
        code = helper.ended(0) or 0
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        return ProcessLost(
            f"process {helper.rank + 1} of the {self.count} of this run has ended ({how}): start the same command again to go on "
            f"from the last checkpoint.{helper.last_words()}"
        )

    def _watch(self, helpers: "list[_Helper]") -> None:
        """End this process if another has died and nobody notices, since a GPU may wait for it for ever."""
        while self._helpers:
            time.sleep(1)
            if dead := [helper for helper in helpers if helper.ended(0) not in (None, 0)]:
                time.sleep(SECONDS_TO_NOTICE)
                if self._helpers:
                    print(str(self._said_of(dead[0])), file=sys.stderr, flush=True)
                    os._exit(1)


class _Helper:
    """Another process of this machine. It ends with this one, whose end closes its stdin."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.rank = int(job["seat"].rank)
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `end`
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        environment.setdefault("OMP_NUM_THREADS", str(job["threads"]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", HELPER], stdin=subprocess.PIPE, stdout=self._log, stderr=subprocess.STDOUT, env=environment,
            # A terminal's Ctrl-C comes to the first process alone, which asks the others.
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()

    def ended(self, seconds: float) -> int | None:
        """Its exit code, within so many seconds; None if it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds) if seconds else self._process.poll()
        return None

    def last_words(self, lines: int = 12) -> str:
        """The end of what it printed, each line indented."""
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        return "".join(f"\n  {line}" for line in said[-lines:])

    def end(self) -> None:
        """It has nothing to do any more."""
        if self.ended(SECONDS_TO_END) is None:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._log.close()


ALONE = ProcessGroup()


def ranks_of(fabric: Fabric) -> ProcessGroup:
    """The processes of a run that is trained with this Fabric."""
    found = getattr(fabric.strategy, "ranks", None)
    return found if isinstance(found, ProcessGroup) else ALONE
