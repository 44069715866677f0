"""The components that ship with attent-kit. This list is complete; anybody's plugin looks just the same."""

from pathlib import Path

from attent_kit import hookimpl

_HERE = __name__


@hookimpl
def attentkit_translators() -> dict[str, str]:
    return {
        "resnet": f"{_HERE}.translators.resnet:ResNetTranslator",
        "attention": f"{_HERE}.translators.attention:AttentionTranslator",
        "sifa": f"{_HERE}.translators.sifa:SifaTranslator",
    }


@hookimpl
def attentkit_segmentors() -> dict[str, str]:
    return {
        "smp": f"{_HERE}.segmentors.smp:SmpSegmentor",
        "deeplabv2": f"{_HERE}.segmentors.deeplabv2:DeepLabV2Segmentor",
        "resnet": f"{_HERE}.segmentors.resnet:ResNetSegmentor",
        "sifa": f"{_HERE}.segmentors.sifa:SifaSegmentor",
    }


@hookimpl
def attentkit_discriminators() -> dict[str, str]:
    return {
        "patch": f"{_HERE}.discriminators.patch:PatchDiscriminator",
        "fcn": f"{_HERE}.discriminators.fcn:FCNDiscriminator",
        "pixel": f"{_HERE}.discriminators.pixel:PixelDiscriminator",
    }


@hookimpl
def attentkit_alignments() -> dict[str, str]:
    return {
        "source_only": f"{_HERE}.alignments.source_only:SourceOnly",
        "supervised": f"{_HERE}.alignments.supervised:Supervised",
        "ada_output": f"{_HERE}.alignments.ada_output:AdaOutput",
        "synsegnet": f"{_HERE}.alignments.synsegnet:SynSegNet",
        "cyclegan": f"{_HERE}.alignments.cyclegan:CycleGAN",
        "cycada": f"{_HERE}.alignments.cycada:CyCADA",
        "sifa": f"{_HERE}.alignments.sifa:SIFA",
        "pixel": f"{_HERE}.alignments.pixel:Pixel",
        "feature": f"{_HERE}.alignments.feature:Feature",
        "entropy": f"{_HERE}.alignments.entropy:Entropy",
        "attent": f"{_HERE}.alignments.attent:AttENT",
    }


@hookimpl
def attentkit_layouts() -> dict[str, str]:
    return {
        "chaos": f"{_HERE}.layouts.chaos:Chaos",
        "btcv": f"{_HERE}.layouts.btcv:BTCV",
        "amos": f"{_HERE}.layouts.amos:Amos",
        "flare": f"{_HERE}.layouts.flare:Flare",
        "mmwhs": f"{_HERE}.layouts.mmwhs:MMWHS",
        "ircadb": f"{_HERE}.layouts.ircadb:Ircadb",
        "brats": f"{_HERE}.layouts.brats:Brats",
        "nnunet": f"{_HERE}.layouts.nnunet:NnUNet",
        "msd": f"{_HERE}.layouts.msd:MSD",
        "totalsegmentator": f"{_HERE}.layouts.totalsegmentator:TotalSegmentator",
        "organ_masks": f"{_HERE}.layouts.organ_masks:OrganMasks",
        "attent_png": f"{_HERE}.layouts.attent_png:AttentPng",
        "sifa_npz": f"{_HERE}.layouts.sifa_npz:SifaNpz",
        "dicom": f"{_HERE}.layouts.dicom:DicomFolders",
        "pairs": f"{_HERE}.layouts.pairs:Pairs",
    }


@hookimpl
def attentkit_selectors() -> dict[str, str]:
    return {
        "entropy": f"{_HERE}.selectors.entropy:MeanEntropy",
        "im": f"{_HERE}.selectors.im:InformationMaximisation",
        "snd": f"{_HERE}.selectors.snd:SoftNeighborhoodDensity",
        "class-ratio": f"{_HERE}.selectors.class_ratio:ClassRatio",
        "mmd": f"{_HERE}.selectors.mmd:MaximumMeanDiscrepancy",
        "coral": f"{_HERE}.selectors.coral:Coral",
        "cycle": f"{_HERE}.selectors.cycle:CycleAgreement",
        "source-dice": f"{_HERE}.selectors.source_dice:SourceDice",
    }


@hookimpl
def attentkit_trackers() -> dict[str, str]:
    return {
        "tensorboard": f"{_HERE}.trackers.tensorboard:TensorBoard",
        "wandb": f"{_HERE}.trackers.wandb:WandB",
        "mlflow": f"{_HERE}.trackers.mlflow:MLflow",
    }


@hookimpl
def attentkit_launchers() -> dict[str, str]:
    return {"local": f"{_HERE}.launchers.local:Local"}


@hookimpl
def attentkit_suites() -> dict[str, str]:
    return {"phantom": str(Path(__file__).parent / "suites" / "phantom.toml")}
