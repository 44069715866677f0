"""MONAI's 2-D networks as segmentors: BasicUNet, SegResNet and SwinUNETR."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.0"


@hookimpl
def attentkit_segmentors() -> dict[str, str]:
    return {
        "monai_basic_unet": "attentkit_monai.segmentors:MonaiBasicUNet",
        "monai_segresnet": "attentkit_monai.segmentors:MonaiSegResNet",
        "monai_swin_unetr": "attentkit_monai.segmentors:MonaiSwinUNETR",
    }
