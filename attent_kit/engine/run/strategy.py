"""What Fabric is told of a run in several processes."""

from typing import Any

from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from attent_kit.engine.run.ranks import ProcessGroup, Seat


class Seated(LightningEnvironment):
    """What Fabric asks of a process that has one device, its own, whoever has started it."""

    creates_processes_externally = True

    def local_rank(self) -> int:
        return 0


class Several(DDPStrategy):
    """Fabric's strategy for several processes, which deals batches to networks in place of wrapping them: DDP's own hooks expect
    one backward for each forward, and a loss that is a mean over slices."""

    def __init__(self, count: int, seat: Seat | None) -> None:
        super().__init__()
        self.ranks = ProcessGroup(count, seat)

    def setup_environment(self) -> None:
        """The processes meet later: `ProcessGroup.together`."""
        assert self.accelerator is not None
        self.accelerator.setup_device(self.root_device)
        self.ranks.device = self.root_device

    def setup_module(self, module: nn.Module) -> Any:
        """The same network, whose forward is dealt."""
        module.forward = self.ranks.table.deal(module.forward)
        return module
