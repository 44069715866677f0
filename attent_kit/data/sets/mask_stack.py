"""A folder of PNG masks, one per slice of a DICOM series, as CHAOS hands out its truth and takes predictions."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from attent_kit.data.scans.dicom import Series, find_series, read_series
from attent_kit.data.scans.pictures import natural, read_picture
from attent_kit.data.scans.volumes import Volume
from attent_kit.data.sets.labelmap import TASK_ORGANS, LabelMap
from attent_kit.errors import DataError

CHAOS_GREY_BANDS = ((55, 70), (110, 135), (175, 200), (240, 255))
"""Grey values of the four organs in CHAOS MR, above the first and up to the second: nominally 63, 126, 189 and 252."""
GREY_VALUES = LabelMap.of(
    {organ: range(low + 1, up + 1) for organ, (low, up) in zip(TASK_ORGANS, CHAOS_GREY_BANDS, strict=True)}
)
"""The label map of CHAOS MR masks."""
WHITE = (1, 255)
"""What a pixel of a one-bit mask may be stored as."""


def chaos_classes(masks: Volume, modality: str) -> Volume:
    """The masks of a series of that modality as CHAOS means them: n for the n-th of TASK_ORGANS, uint8.

    Masks of one bit are the liver in CT, all else goes by `CHAOS_GREY_BANDS`. DataError for a value in no band, and for
    one-bit masks of MR, which do not say of which organ they are.
    """
    found = {int(value) for value in np.unique(masks.array)} - {0}
    one_bit = len(found) == 1 and found <= {*WHITE}
    if one_bit and modality.upper() != "CT":
        raise DataError(
            f"{masks.path} holds masks of one organ, with the value {found.pop()} alone: say which, as in --organs liver=255."
        )
    classes = masks.array != 0 if one_bit else GREY_VALUES.apply(masks.array, str(masks.path))
    return replace(masks, array=classes.astype(np.uint8))


def chaos_organs(truth: Volume, modality: str) -> tuple[str, ...]:
    """What is scored against classes of TASK_ORGANS: in CT the liver alone, unless somebody has drawn others there, too."""
    liver_alone = modality.upper() == "CT" and truth.array.max() <= 1
    return TASK_ORGANS[:1] if liver_alone else TASK_ORGANS


def read_slices(folder: Path) -> tuple[Series, Volume]:
    """The only series of a DICOM folder, and its volume. ConfigError if there are several."""
    found = find_series(folder)
    image, _ = read_series(found[0] if len(found) == 1 else folder)  # which refuses none and several, and lists them
    return found[0], image


def read_mask_stack(folder: Path, series: Series, image: Volume) -> Volume:
    """The masks of a folder as labels on the grid of `image`, the volume of `series`: uint8 grey values [X, Y, Z].

    A mask belongs to the slice whose file has its name; where no name agrees, masks in the order of the numbers in their
    names belong to slices in the order of InstanceNumber or, without it, of file names. Which way round that is does not
    matter to a score. DataError for a mask too many or too few, of another size than the slices, in colours, or unreadable.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}: with --dicom, name a folder of PNG masks, one per slice.")
    files = [path for path in folder.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith(".")]
    columns, rows, slices = image.array.shape
    if len(files) != slices:
        raise DataError(
            f"{folder} holds {len(files)} PNG masks, but the DICOM series has {slices} slices: give one mask per slice."
        )
    array = np.empty((slices, rows, columns), np.uint8)
    for path, z in zip(sorted(files, key=_in_order), _slices_of(files, series, slices), strict=True):
        mask = _read(path)
        if mask.shape != (rows, columns):
            raise DataError(
                f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels, but the slices of the DICOM series have "
                f"{columns} x {rows}: give masks on the grid of the slices."
            )
        array[z] = mask
    return Volume(array.transpose(2, 1, 0), image.affine, image.header, folder)


def _slices_of(files: list[Path], series: Series, slices: int) -> list[int]:
    """The slice of each mask in natural order."""
    masks = sorted(files, key=_in_order)
    by_name = {path.stem: z for z, path in enumerate(series.files)}
    named = [path for path in masks if path.stem in by_name]
    if len(by_name) == len({path.stem for path in named}) == slices:
        return [by_name[path.stem] for path in masks]
    if named:
        odd = next((path for path in masks if path not in named), masks[0])
        raise DataError(f"{odd} is not named like a slice of the DICOM series, but {named[0].name} is: name all alike.")
    if len(series.files) != slices:  # one file of several slices, which has them in order
        return list(range(slices))
    numbers = [number for number in series.numbers if number is not None]
    if len(set(numbers)) == slices:
        return sorted(range(slices), key=lambda z: series.numbers[z] or 0)
    return sorted(range(slices), key=lambda z: _in_order(series.files[z]))


def _in_order(path: Path) -> list[tuple[int, int, str]]:
    return natural(path.name)


def _read(path: Path) -> np.ndarray:
    """[H, W] uint8; black and white are 0 and 255."""
    mask = read_picture(path)
    if mask.dtype != np.uint8:
        raise DataError(f"{path} is not a grey picture of 8 bits: save the mask as one.")
    return mask
