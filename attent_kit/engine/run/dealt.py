"""One batch on several devices: each process computes its share of what a network is asked, and all have all answers.

Every process takes the same step on the same batch of the run. Only the `forward` of a network is dealt:

    own    = the rank-th of N equal parts of x                 forward: a part      backward: all gradients of x, put together / N
    answer = the answers of all processes, put together        forward: all         backward: the gradient of the own part * N

and the gradients of parameters are averaged over the processes before an optimizer step. Losses, image pools, gates and moving
averages see the whole batch and are the same in every process, so none of them needs to be a mean over the slices, and what is
computed without a network, such as a weight's norm in a loss, comes out of the average as it went in.

Within a share BatchNorm uses mean and variance of the whole batch (Ioffe, Szegedy 2015; as in synchronised BatchNorm), and
dropout and other draws for each slice are the share of what one process would have drawn. N processes therefore end in the
weights of one up to rounding. A batch that N does not divide is computed whole by every process.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

MULTIPLIES = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
"""Functions that multiply each slice by random numbers."""
FILLS = (Tensor.bernoulli_, Tensor.normal_, Tensor.uniform_)
"""Methods that fill a tensor with random numbers; the depth of some networks is random by them."""
LIKE = (torch.rand_like, torch.randn_like)
"""Functions that draw a tensor like another."""


class Dealer:
    """Where batches are dealt: how many processes sit at it, and which of them this is."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count
        self.dealing = False
        """Whether a step is being taken, by all processes at the same time."""

    def share(self, x: Tensor) -> Tensor:
        """The own part of a batch, [B, ...] -> [B / N, ...]."""
        size = len(x) // self.count
        return x[self.rank * size : (self.rank + 1) * size]

    def deal(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A network's forward that computes its share of a batch while a step is being taken, and answers for all of it."""

        def dealt(*given: Any, **named: Any) -> Any:
            size = next((len(x) for x in (*given, *named.values()) if isinstance(x, Tensor) and x.ndim), 0)
            if not self.dealing or size == 0 or size % self.count:
                return forward(*given, **named)

            def own(x: Tensor) -> Tensor:
                return _Share.apply(x, self) if x.ndim and len(x) == size else _Same.apply(x, self)

            def whole(y: Tensor) -> Tensor:
                if y.ndim and len(y) == size // self.count:
                    return _Join.apply(y, self)
                return _Join.apply(y.unsqueeze(0), self).mean(0) if y.is_floating_point() else y

            given, named = _each((given, named), own)
            self.dealing = False  # A network within a network has its share already.
            try:
                with _AsOne(self, size):
                    answer = forward(*given, **named)
            finally:
                self.dealing = True
            return _each(answer, whole)

        return dealt


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with every tensor changed, also those in tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return type(value)({name: _each(inner, change) for name, inner in value.items()})  # type: ignore[call-arg]
    if isinstance(value, (list, tuple)):
        inner = [_each(one, change) for one in value]
        return type(value)(*inner) if hasattr(value, "_fields") else type(value)(inner)
    return value


class _Share(Function):
    """The own part of what all have."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Dealer) -> Tensor:
        ctx.table = table
        return table.share(x).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Join.apply(gradient, ctx.table) / ctx.table.count, None


class _Join(Function):
    """The parts of all, put together."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Dealer) -> Tensor:
        ctx.table = table
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        own = (x.movedim(1, -1) if last else x).contiguous()
        # As bytes, since not every backend knows every type.
        part = own.reshape(-1).view(torch.uint8)
        joined = part.new_empty(table.count, part.numel())
        torch.distributed.all_gather(list(joined), part)
        whole = joined.reshape(-1).view(x.dtype).reshape(table.count * len(own), *own.shape[1:])
        return whole.movedim(-1, 1) if last else whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Share.apply(gradient, ctx.table) * ctx.table.count, None


class _Same(Function):
    """What all have and none shares; its gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Dealer) -> Tensor:
        ctx.table = table
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Sum.apply(gradient) / ctx.table.count, None


class _Sum(Function):
    """The sum of what all have."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


class _AsOne(TorchFunctionMode):
    """Lets a network that computes a share compute as if it saw the whole batch of `size` slices."""

    def __init__(self, table: Dealer, size: int) -> None:
        super().__init__()
        self._table, self._size = table, size

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        x = args[0] if args else None
        if isinstance(x, Tensor) and x.ndim and len(x) == self._size // self._table.count:
            if func in MULTIPLIES:
                return self._multiply(func, *args, **kwargs)
            if func in FILLS:
                return x.copy_(self._table.share(func(self._whole(x), *args[1:], **kwargs)))
            if func in LIKE:
                return self._table.share(func(self._whole(x), *args[1:], **kwargs)).clone()
        return func(*args, **kwargs)

    def _whole(self, x: Tensor) -> Tensor:
        return x.new_empty(self._size, *x.shape[1:])

    def _multiply(self, func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        # Of whole numbers of slices the same numbers are drawn as for the images themselves.
        ones = torch.ones_like(self._whole(x))
        return x * self._table.share(func(ones, p, True))

    def _batch_norm(
        self, x: Tensor, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None = None, bias: Tensor | None = None,
        training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        """[n, channels, ...] -> the same. Moves the running mean and variance, as torch's function does."""
        if not training:
            return F.batch_norm(x, mean, variance, weight, bias, False, momentum, eps)
        exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        over = [0, *range(2, x.ndim)]
        own_variance, own_mean = torch.var_mean(exact, over, correction=0)
        m = _Sum.apply(own_mean) / self._table.count
        v = _Sum.apply(own_variance + (own_mean - m).square()) / self._table.count
        if mean is not None and variance is not None:
            n = self._table.count * x.numel() // x.shape[1]
            with torch.no_grad():
                mean.lerp_(m.to(mean.dtype), momentum)
                variance.lerp_((v * (n / max(n - 1, 1))).to(variance.dtype), momentum)
        scale = (v + eps).rsqrt() if weight is None else (v + eps).rsqrt() * weight
        shift = -m * scale if bias is None else bias - m * scale
        shape = (1, -1, *(1 for _ in over[1:]))
        return (exact * scale.view(shape) + shift.view(shape)).to(x.dtype)
