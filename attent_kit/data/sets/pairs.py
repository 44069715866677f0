"""Which image goes with which label map, told from file names as the common data sets spell them."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from attent_kit.errors import DataError

_ENDING = re.compile(r"\.nii(\.gz)?$")
_BEFORE = re.compile(r"^(images?|img|labels?|lbl|masks?|seg)[-_]?(?=\d)", re.IGNORECASE)
_AFTER = re.compile(
    r"[-_.](0000|avg|image|img|labels?_totalsegmentator|labels?|lbl|mask|seg|segmentation|gt|ground_?truth)$",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^(labels?|lbl|masks?|seg)[-_]?\d"
    r"|[-_.](labels?_totalsegmentator|labels?|lbl|mask|seg|segmentation|gt|ground_?truth)$",
    re.IGNORECASE,
)


class Pair(NamedTuple):
    """One case: an image, and its label map if there is one."""

    case: str
    image: Path
    labels: Path | None = None


def find_pairs(
    images: Path | str,
    labels: Path | str | None = None,
    *,
    allow_unlabelled: bool = False,
    spare_labels: bool = False,
    or_else: str = "",
) -> list[Pair]:
    """Images and label maps matched by case, sorted by case; both may be a folder or one file, or `images` a CSV list.

    The case is the file name without its ending and without what the common layouts add: nnU-Net's `_0000`,
    `_label(s)`, `_seg`, `_mask`, `_gt`, `_avg`, TotalSegmentator's `_labels_totalsegmentator`, BTCV's `img0001` and
    `label0001`. Files that begin with a dot are skipped. Images and labels may share a folder, if the labels are named
    as labels.
    With `spare_labels` label maps without an image are left out.
    DataError for an empty folder, for two files of one case, and for a file without its counterpart; with
    `allow_unlabelled` an image may go without labels, and `or_else` is what else to do, for the end of that sentence.
    """
    images, labels = Path(images), None if labels is None else Path(labels)
    if images.suffix == ".csv":
        return _listed_pairs(images)
    shared = labels is not None and labels.is_dir() and images.resolve() == labels.resolve()
    image_files = _by_case(images, "image", [f for f in _files(images) if not (shared and is_label(f))])
    if labels is None:
        return [Pair(case, image) for case, image in sorted(image_files.items())]
    label_files = _by_case(labels, "label map", [f for f in _files(labels) if not (shared and not is_label(f))])
    if images.is_file() and labels.is_file():
        (case, image), (label_map,) = next(iter(image_files.items())), label_files.values()
        return [Pair(case, image, label_map)]
    if images.is_file() or spare_labels:
        label_files = {case: path for case, path in label_files.items() if case in image_files}
    if lonely := [path.name for case, path in label_files.items() if case not in image_files]:
        raise DataError(f"no image in {images} goes with {_listed(lonely)}: name both alike, or remove the label map.")
    lonely = [path.name for case, path in image_files.items() if case not in label_files]
    if lonely and not allow_unlabelled:
        raise DataError(
            f"no label map in {labels} goes with {_listed(lonely)}: name both alike, as in case1.nii.gz and "
            f"case1_labels.nii.gz{or_else}."
        )
    return [Pair(case, image, label_files.get(case)) for case, image in sorted(image_files.items())]


def _listed_pairs(path: Path) -> list[Pair]:
    """Pairs of a CSV file with the columns image, labels (may be empty) and, if wanted, case; paths relative to the file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a list of pairs ({error}): save it as CSV in UTF-8.") from None
    if not lines or not lines[0].get("image"):
        raise DataError(f"{path} lists no pair: write a first line 'image,labels' and a line for each case below it.")
    pairs = []
    for number, line in enumerate(lines, 1):
        image, labels = (path.parent / line[name].strip() if line.get(name) else None for name in ("image", "labels"))
        if image is None:
            raise DataError(f"{path}, case {number}: there is no image: write its file, or remove the line.")
        pairs.append(Pair((line.get("case") or case_name(image)).strip(), image, labels))
    return sorted(pairs, key=lambda pair: pair.case)


def case_name(path: Path | str) -> str:
    """The case of a file: `img0001.nii.gz` and `label0001.nii.gz` -> '0001', `ct_case1_labels.nii.gz` -> 'ct_case1'."""
    stem = _ENDING.sub("", Path(path).name)
    while (shorter := _AFTER.sub("", stem)) not in (stem, ""):
        stem = shorter
    return _BEFORE.sub("", stem)


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"{place} does not exist: check the spelling of the path.")
    found = sorted(path for path in place.iterdir() if _ENDING.search(path.name) and not path.name.startswith("."))
    if not found:
        raise DataError(f"{place} holds no .nii or .nii.gz file: name the folder that the volumes lie in directly.")
    return found


def _by_case(place: Path, kind: str, files: list[Path]) -> dict[str, Path]:
    if not files:
        raise DataError(
            f"{place} holds no {kind}: images and labels in one folder are told apart by a name like case1_labels."
        )
    cases: dict[str, Path] = {}
    for path in files:
        if (other := cases.setdefault(case_name(path), path)) is not path:
            raise DataError(
                f"{other.name} and {path.name} are both the {kind} of case '{case_name(path)}': rename or move one; "
                "if one is a label map, name the labels too."
            )
    return cases


def is_label(path: Path | str) -> bool:
    """Whether a file is named as a label map, as `label0001.nii.gz` and `case1_seg.nii.gz` are."""
    return bool(_LABEL.search(_ENDING.sub("", Path(path).name)))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
