"""Instance normalisation that keeps the memory layout of its input."""

from torch import nn


def instance_norm(channels: int, affine: bool = False) -> nn.GroupNorm:
    """Each channel of each image to mean 0 and variance 1: [B, channels, H, W] -> the same. Ulyanov et al. 2016.

    Group norm with one channel a group is the same function; PyTorch's InstanceNorm2d copies a channels-last image
    to channels-first and leaves it there, so that every convolution has to copy it back.
    """
    return nn.GroupNorm(channels, channels, affine=affine)
