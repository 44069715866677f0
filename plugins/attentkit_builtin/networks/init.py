"""Weight initialisation of the image-to-image networks."""

from torch import nn


def normal_(network: nn.Module, std: float = 0.02) -> None:
    """Draw convolution weights from N(0, std) and affine norm scales from N(1, std), set every bias to 0, in place.

    Zhu et al. 2017, appendix 7.1; std is that of DCGAN (Radford et al. 2016). AttENT's code leaves biases at PyTorch's
    default.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def truncated_normal_(network: nn.Module, std: float) -> None:
    """Draw convolution weights from N(0, std), redrawn beyond two std, and set their biases to 0, in place.

    TensorFlow's truncated normal, of standard deviation 0.88 std. Norms stay at scale 1 and shift 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.trunc_normal_(module.weight, 0.0, std, -2 * std, 2 * std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
