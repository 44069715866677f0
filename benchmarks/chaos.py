"""The labelled CT of chaos.toml: sets with label values of their own as one folder of NIfTI with one set of values.

    python benchmarks/chaos.py OUT --ct IMAGES LABELS "liver=6,right kidney=2,left kidney=3,spleen=1,*=0" --ct ...

IMAGES is a NIfTI file, a folder of them or the folder of a DICOM series.
"""

import argparse
from pathlib import Path

import nibabel as nib

from attent_kit.data.scans.dicom import read_series
from attent_kit.data.scans.volumes import read_labels, read_volume, write_labels
from attent_kit.data.sets.labelmap import LabelMap


def one(out: Path, image: Path, labels: Path, organs: LabelMap) -> None:
    """One case; the labels may lie in another axis order than the image."""
    volume = read_series(image)[0] if image.is_dir() else read_volume(image)
    drawn = organs.apply(read_labels(labels, like=volume).array, str(labels))
    name = f"{image.name.partition('.')[0]}.nii.gz"
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume.array, volume.affine), out / "images" / name)
    write_labels(out / "labels" / name, drawn, volume.affine)


def cases(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Pairs of files: of two folders of NIfTI by name, or the two themselves."""
    found = sorted(images.glob("*.nii*")) if images.is_dir() else []
    return [(image, labels / image.name) for image in found] or [(images, labels)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ct", nargs=3, action="append", required=True)
    given = parser.parse_args()
    for images, labels, organs in given.ct:
        for pair in cases(Path(images), Path(labels)):
            one(given.out, *pair, LabelMap.parse(organs))
