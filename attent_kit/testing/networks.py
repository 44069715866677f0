"""What methods rely on in a translator, a segmentor or a discriminator, one function per claim."""

import pickle
from typing import Any

import torch
from torch import Tensor, nn

from attent_kit.engine.run.device import launch
from attent_kit.interfaces import Discriminator, Patch, Segmentation, Segmentor, Task, Translator
from attent_kit.testing.subject import FOUR_ORGANS, Skipped, Subject, images
from attent_kit.testing.waiting import nobody_waits

CRITICS_CHANNELS = 5
"""Of what a discriminator is shown here."""
DEPTH = 5
"""Slices of what a segmentor of volumes is shown, whatever its patch is."""


def network_of(subject: Subject, task: Task = FOUR_ORGANS, heads: int = 1, channels: int = CRITICS_CHANNELS) -> Any:
    """The network, freshly initialised."""
    torch.manual_seed(0)
    if subject.kind == Discriminator.kind:
        network = subject.component(subject.config, channels, heads)
    else:
        network = subject.component(subject.config, task)
    return network.to(subject.device)


def _input(subject: Subject, task: Task = FOUR_ORGANS, batch: int = 2, height: int = 64, width: int = 64) -> Tensor:
    if subject.kind == Discriminator.kind:
        return torch.rand(batch, CRITICS_CHANNELS, height, width, device=subject.device)
    volumes = getattr(subject.component, "dims", 2) == 3
    return images(batch, task, height, width, DEPTH if volumes else None).to(subject.device)


def tensors(answer: Any) -> list[Tensor]:
    """What a network answers, as a list."""
    return [answer] if isinstance(answer, Tensor) else [t for t in answer if t is not None]


def _forward(network: Any, x: Tensor, task: Task = FOUR_ORGANS, heads: int = 1) -> Any:
    """The answer, if it is as the interface says."""
    answer = network(x)
    if isinstance(network, Translator):
        translated(network, x, answer)
    elif isinstance(network, Segmentor):
        segmented(network, x, answer, task)
    else:
        judged(network, x, answer, heads)
    for tensor in tensors(answer):
        assert torch.isfinite(tensor).all(), f"{type(network).__name__} returns numbers that are not finite."
    return answer


def translated(network: Translator, x: Tensor, y: Tensor) -> None:
    """Same shape, values in [-1, 1]."""
    name = type(network).__name__
    assert y.shape == x.shape, f"{name} made {tuple(y.shape)} of {tuple(x.shape)}: keep the shape."
    assert y.min() >= -1 and y.max() <= 1, f"{name} leaves [-1, 1]: end with tanh."


def segmented(network: Segmentor, x: Tensor, out: Segmentation, task: Task) -> None:
    """Logits at input resolution; channels and stride of the features and whether there is an auxiliary head as declared."""
    name = type(network).__name__
    assert isinstance(out, Segmentation), f"{name} returns {type(out).__name__}: return a Segmentation."
    expected = (len(x), task.classes, *x.shape[2:])
    assert out.logits.shape == expected, f"{name}: logits are {tuple(out.logits.shape)}, not {expected}."
    assert out.features.ndim == x.ndim and out.features.shape[1] == network.feature_channels, (
        f"{name}: features have {out.features.shape[1]} channels, feature_channels says {network.feature_channels}."
    )
    # Of volumes the stride is that in the plane.
    pairs = zip(out.features.shape[-2:], x.shape[-2:], strict=True)
    nearly = [abs(coarse * network.feature_stride - side) for coarse, side in pairs]
    assert max(nearly) <= 2 * network.feature_stride, (
        f"{name}: features are {tuple(out.features.shape[-2:])} for an image of {x.shape[-2]} x {x.shape[-1]}, which does not "
        f"fit a feature_stride of {network.feature_stride}."
    )
    assert (out.auxiliary is not None) == network.has_auxiliary, (
        f"{name}: has_auxiliary does not match what forward returns."
    )
    assert out.auxiliary is None or out.auxiliary.shape == expected, f"{name}: auxiliary is not {expected}."


def judged(network: Discriminator, x: Tensor, y: Tensor, heads: int) -> None:
    """Logits [B, heads, h, w]."""
    assert y.ndim == 4 and y.shape[:2] == (len(x), heads), (
        f"{type(network).__name__} returns {tuple(y.shape)} for {heads} heads: return [B, heads, h, w]."
    )


def forward_answers(subject: Subject) -> None:
    """Methods are written against the interface. A translator keeps the shape and stays in [-1, 1]; a segmentor answers a
    Segmentation with logits [B, K, H, W] and features as it declares; a discriminator [B, heads, h, w] for any `heads`."""
    for heads in (1, 2) if subject.kind == Discriminator.kind else (1,):
        _forward(network_of(subject, heads=heads), _input(subject), heads=heads)


def encoder_shows(subject: Subject) -> None:
    """CUT compares patches of the maps that a translator says it has. `encode` returns one for each of `encoder_channels`, with
    as many channels, for any size, and gives a gradient to the image. A translator that shows none leaves both out."""
    network = network_of(subject)
    for height, width in ((64, 64), (37, 45)):
        if network.encoder_channels:
            x = _input(subject, height=height, width=width).requires_grad_()
            shown(network, x, network.encode(x))


def shown(network: Translator, x: Tensor, maps: tuple[Tensor, ...]) -> None:
    """The claim of `encoder_shows`."""
    name, found = type(network).__name__, tuple(m.shape[1] if m.ndim == 4 else 0 for m in maps)
    assert found == tuple(network.encoder_channels), (
        f"{name}: encode returns maps of {found} channels, encoder_channels says {tuple(network.encoder_channels)}."
    )
    assert all(len(m) == len(x) for m in maps), f"{name}: encode returns another number of images than it was given."
    maps[-1].float().square().mean().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0, f"{name}: encode gives no gradient to its image."


def odd_sizes(subject: Subject) -> None:
    """Slices can have any size from 32 up. Do not assume a multiple of 32 or a square: pad and crop, or interpolate."""
    for height, width in ((61, 69), (37, 45)) if subject.kind != Discriminator.kind else ((61, 69),):
        _forward(network_of(subject), _input(subject, height=height, width=width))


def batch_of_one(subject: Subject) -> None:
    """Published batch sizes are often 1. Avoid squeeze(), and BatchNorm over a single value: both fail on such a batch."""
    _forward(network_of(subject), _input(subject, batch=1))


def two_classes(subject: Subject) -> None:
    """One organ and background. Take the number of classes from task.classes, never from a constant."""
    task = Task(organs=("liver",))
    _forward(network_of(subject, task), _input(subject, task), task)


def eight_classes(subject: Subject) -> None:
    """Seven organs and background. Take the number of classes from task.classes, never from a constant."""
    task = Task(organs=tuple("abcdefg"))
    _forward(network_of(subject, task), _input(subject, task), task)


def patch_declared(subject: Subject) -> None:
    """The engine draws patches for a segmentor of volumes and lets windows slide. With `dims` = 3 set `self.patch`, as
    `config.seen_at_once` of PatchOptions; with 2 leave it None."""
    patch = network_of(subject).patch
    if subject.component.dims == 2:
        assert patch is None, f"{subject.called} has a patch, and its dims are 2."
        return
    assert isinstance(patch, Patch) and len(patch.size) == 3, f"{subject.called} labels volumes and has no patch."


def three_channels(subject: Subject) -> None:
    """An image may hold a slice with its neighbours. Take the number of channels from task.channels, never from a constant."""
    if getattr(subject.component, "dims", 2) == 3:
        raise Skipped("it labels volumes, which have one channel.")
    task = Task(channels=3)
    _forward(network_of(subject, task), _input(subject, task), task)


def bfloat16(subject: Subject) -> None:
    """GPUs train in bf16-mixed by default. Build tensors in the dtype and on the device of the input, not in float32."""
    network = launch(subject.device, "bf16-mixed").setup_module(network_of(subject))
    answer = network(_input(subject))
    assert all(torch.isfinite(t).all() for t in tensors(answer)), (
        f"{subject.called} returns numbers in bf16-mixed that are not finite."
    )


def gradients(subject: Subject) -> None:
    """Adversarial methods train through every network. Each trainable parameter and the image must get a gradient: no
    detach(), no argmax, no parameter that forward does not use."""
    network = network_of(subject)
    x = _input(subject).requires_grad_()
    # Squares, and not a sum: the mean of normalised features does not depend on the image.
    sum((t.float().square().mean() for t in tensors(network(x))), x.new_zeros(())).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0, f"{subject.called} gives no gradient to its image."
    silent = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent, f"{subject.called}: parameter {silent[0] if silent else ''} has no gradient."


def eval_repeats(subject: Subject) -> None:
    """In eval mode an image has one answer: nothing is random, and no buffer changes. Use nn.Dropout, which eval mode turns
    off, not functional.dropout, which it does not."""
    network = network_of(subject).eval()
    repeats(network, _input(subject))


def repeats(network: nn.Module, x: Tensor) -> None:
    """The claim of `eval_repeats`."""
    network.eval()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad():
        first, second = network(x), network(x)
    for a, b in zip(tensors(first), tensors(second), strict=True):
        assert torch.equal(a, b), f"{type(network).__name__} answers differently the second time in eval mode."
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), f"{type(network).__name__} changes its buffer {name} in eval mode."


def state_is_all(subject: Subject) -> None:
    """A checkpoint holds parameters and buffers, so a copy filled from them must give the same answers. Register what
    forward needs as a parameter or a buffer, not as a plain tensor."""
    network = network_of(subject)
    with torch.no_grad():
        network(_input(subject))
    torch.manual_seed(1)
    twin = type(network)(
        subject.config, *((CRITICS_CHANNELS, 1) if subject.kind == Discriminator.kind else (FOUR_ORGANS,))
    ).to(subject.device)
    twin.load_state_dict(network.state_dict())
    x = _input(subject)
    with torch.no_grad():
        pairs = zip(tensors(network.eval()(x)), tensors(twin.eval()(x)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), f"{subject.called}: a copy from its state answers differently."


def network_pickles(subject: Subject) -> None:
    """Networks are copied and sent between processes. Keep no lambda, no open file and no local function in an attribute."""
    network = network_of(subject)
    try:
        pickle.loads(pickle.dumps(network))
    except Exception as error:
        raise AssertionError(f"{subject.called} cannot be pickled: {error}.") from error


def learning_rate_factors(subject: Subject) -> None:
    """Optimizers take a segmentor's parameters from `learning_rate_factors()`. It must list each trainable one exactly
    once, with a factor above 0."""
    network = network_of(subject)
    groups = network.learning_rate_factors()
    listed = [id(p) for _, group in groups for p in group]
    assert len(listed) == len(set(listed)), f"{subject.called}: learning_rate_factors() lists a parameter twice."
    for name, p in network.named_parameters():
        assert not p.requires_grad or id(p) in listed, f"{subject.called}: learning_rate_factors() leaves {name} out."
    assert all(factor > 0 for factor, _ in groups), (
        f"{subject.called}: a factor of learning_rate_factors() is not above 0."
    )


def forward_waits_for_nobody(subject: Subject) -> None:
    """When Python reads a value, the GPU idles until it is there. Leave out .item(), bool(tensor), .cpu() and indexing by
    masks in forward; torch.where does what an `if` on a tensor does."""
    network, x = network_of(subject), _input(subject)
    network(x)
    with nobody_waits(x.device):
        network(x)
