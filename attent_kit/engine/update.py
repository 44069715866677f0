"""`update("S", loss)`: one optimizer step that lowers `loss` over what optimizer "S" owns. Nothing else moves."""

from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.engine.assemble import owned


class FabricUpdate:
    """The engine's `Update`. Gradients are computed for the owned parameters alone: none reach a critic on the way."""

    def __init__(self, fabric: Fabric, optimizers: dict[str, Optimizer]) -> None:
        self._fabric = fabric
        self._optimizers = optimizers
        self._owned = {name: owned(optimizer) for name, optimizer in optimizers.items()}

    def __call__(self, optimizer: str, loss: Tensor) -> None:
        self._fabric.backward(loss, inputs=self._owned[optimizer])
        self._optimizers[optimizer].step()
        self._optimizers[optimizer].zero_grad(set_to_none=True)
