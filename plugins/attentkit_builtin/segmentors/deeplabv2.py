"""DeepLabV2 on ResNet-101 with two heads, the segmentor of AdaptSegNet, ADVENT and AttENT.

Chen, Papandreou, Kokkinos, Murphy, Yuille. DeepLab. TPAMI 2018. https://arxiv.org/abs/1606.00915
He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016. https://arxiv.org/abs/1512.03385
Two heads: Tsai et al. CVPR 2018. https://arxiv.org/abs/1802.10349; Vu et al. CVPR 2019. https://arxiv.org/abs/1811.12833

    logits    = sum over d of conv_d(layer4)        d = 6, 12, 18, 24: 3 x 3 convolutions of dilation d
    auxiliary = the same of layer3                  both resized to the image, bilinearly, corner pixels kept in place

C image channels, K classes; h = floor((H + 1) / 8) + 1, so 33 for 256 pixels, and w likewise.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Segmentation, Segmentor, Task
from attentkit_builtin.networks.pool import MaxPool2d
from attentkit_builtin.networks.resnet import resize
from attentkit_builtin.networks.weights import SUFFIXES, load_encoder

Blocks = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
DILATIONS = {"four-dilations": (6, 12, 18, 24), "adaptsegnet": (6, 12)}


class DeepLabV2Segmentor(Segmentor):
    """DeepLabV2 on ResNet-101 at an eighth of the resolution, with an auxiliary head: the papers' own segmentor.

    The affine parameters of BatchNorm are frozen, while its running statistics move in train mode. The authors feed grey
    values of about [-123, 151], which their ImageNet weights expect; in training the first BatchNorm makes [-1, 1] of
    the same scale.
    """

    class Config(ComponentConfig):
        small = {"width": 4, "blocks": (1, 1, 1, 1)}

        width: PositiveInt = 64
        """Channels of the first convolution; layer1 to layer4 answer 4, 8, 16 and 32 times as many."""
        blocks: Blocks = (3, 4, 23, 3)
        """Bottlenecks of layer1 to layer4: (3, 4, 23, 3) is ResNet-101, (3, 4, 6, 3) is ResNet-50."""
        weights: str = "none"
        """"none", or a local file of ImageNet weights of the ResNet, named as torchvision names them."""
        head: Literal["four-dilations", "adaptsegnet"] = "four-dilations"
        """Sum of four dilations, or of 6 and 12 alone: in AdaptSegNet's code the loop returns early, as its author confirms."""
        head_learning_rate: PositiveFloat = 10.0
        """Learning rate of the heads over that of the ResNet: 10 in AdaptSegNet and ADVENT, 1 in AttENT's script for MR to CT."""

        @field_validator("weights")
        @classmethod
        def _a_local_file(cls, weights: str) -> str:
            if weights != "none" and not weights.endswith(SUFFIXES):
                raise ValueError(
                    f"'{weights}' is not a weights file: write 'none', or the path of a "
                    f"{' or '.join(SUFFIXES[:2])} file."
                )
            return weights

        def without_weights(self) -> "DeepLabV2Segmentor.Config":
            return self.model_copy(update={"weights": "none"})

    has_auxiliary = True

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__(config, task)
        self.trunk = DilatedResNet(task.channels, config.width, config.blocks)
        self.auxiliary_head = DilatedHead(16 * config.width, task.classes, DILATIONS[config.head])
        self.head = DilatedHead(32 * config.width, task.classes, DILATIONS[config.head])
        self.feature_channels = 32 * config.width
        self.feature_stride = 8
        self.head_factor: float = config.head_learning_rate
        if config.weights != "none":
            load_encoder(self.trunk, Path(config.weights).expanduser(), option="weights")

    def forward(self, x: Tensor) -> Segmentation:
        shallower, features = self.trunk(x)
        logits = resize(self.head(features), x.shape[2:])
        auxiliary = resize(self.auxiliary_head(shallower), x.shape[2:])
        return Segmentation(logits, features, auxiliary)

    def learning_rate_factors(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The ResNet at the learning rate itself, the two heads at `head_learning_rate` times as much."""
        trunk = [p for p in self.trunk.parameters() if p.requires_grad]
        return [(1.0, trunk), (self.head_factor, [*self.auxiliary_head.parameters(), *self.head.parameters()])]


class DilatedHead(nn.Module):
    """Sum of 3 x 3 convolutions, one per dilation: [B, channels, h, w] -> [B, classes, h, w].

    Weights from N(0, 0.01) and biases at PyTorch's default, as in the authors' code. A dilation that is not summed has
    no convolution here; AdaptSegNet's code keeps two that never learn.
    """

    def __init__(self, channels: int, classes: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, classes, 3, padding=d, dilation=d) for d in dilations]
        for conv in convs:
            nn.init.normal_(conv.weight, 0.0, 0.01)
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.convs
        logits = first(x)
        for conv in others:
            logits = logits + conv(x)
        return logits


class DilatedResNet(nn.Module):
    """ResNet of output stride 8: [B, C, H, W] -> layer3 [B, 16 width, h, w] and layer4 [B, 32 width, h, w].

    Its modules are named as in torchvision, so that ImageNet weights fit. The pooling rounds up, layer3 and layer4 dilate
    where ResNet halves, and a bottleneck halves in its first convolution; torchvision's were trained to do so in the
    second. Without weights, convolutions start from He's normal over the fan out: the authors' code draws them from
    N(0, 0.01), but always loads ImageNet weights over it.
    """

    def __init__(self, channels: int, width: int, blocks: Blocks) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.layer1 = _layer(width, width, blocks[0])
        self.layer2 = _layer(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = _layer(8 * width, 4 * width, blocks[2], dilation=2)
        self.layer4 = _layer(16 * width, 8 * width, blocks[3], dilation=4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        shallower = self.layer3(self.layer2(self.layer1(x)))
        return shallower, self.layer4(shallower)


class Bottleneck(nn.Module):
    """ReLU of a shortcut plus 1 x 1, dilated 3 x 3 and 1 x 1 convolutions: [B, inputs, h, w] -> [B, 4 width, h, w].

    A stride of 2 halves h and w, rounded up, in the first 1 x 1 convolution and in the shortcut.
    """

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        return self.relu(self.downsample(x) + self.bn3(self.conv3(branch)))


def _layer(inputs: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Bottlenecks of one resolution; the first widens and halves, all dilate: [B, inputs, h, w] -> [B, 4 width, h', w']."""
    others = (Bottleneck(4 * width, width, 1, dilation) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride, dilation), *others)
