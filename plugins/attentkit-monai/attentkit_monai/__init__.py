"""MONAI's networks as segmentors: BasicUNet, SegResNet and SwinUNETR of slices, BasicUNet and SegResNet of volumes."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.3"


@hookimpl
def attentkit_segmentors() -> dict[str, str]:
    return {
        "monai_basic_unet": "attentkit_monai.segmentors:MonaiBasicUNet",
        "monai_basic_unet_3d": "attentkit_monai.segmentors:MonaiBasicUNet3D",
        "monai_segresnet": "attentkit_monai.segmentors:MonaiSegResNet",
        "monai_segresnet_3d": "attentkit_monai.segmentors:MonaiSegResNet3D",
        "monai_swin_unetr": "attentkit_monai.segmentors:MonaiSwinUNETR",
    }
