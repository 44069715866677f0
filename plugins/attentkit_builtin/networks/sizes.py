"""The smallest image a network can take."""

from torch import Tensor

from attent_kit.errors import ConfigError


def require_at_least(pixels: int, x: Tensor, name: str) -> None:
    """ConfigError unless both sides of x [B, C, H, W] have that many pixels."""
    height, width = x.shape[2:]
    if min(height, width) < pixels:
        raise ConfigError(
            f"discriminator '{name}' needs images of at least {pixels} x {pixels} pixels and got {height} x {width}: "
            f"prepare larger slices, or choose 'pixel', which takes any size."
        )
