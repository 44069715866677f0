"""Which image goes with which label map, told from file names as the common data sets spell them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.data.sets.labelmap import LabelMap, OrganNames
from attent_kit.data.sets.roles import ENDING, case_name, forms, is_label, stem
from attent_kit.data.sets.table import LISTS, PairLine, read_pairs
from attent_kit.errors import DataError, few

__all__ = ["Pair", "case_name", "find_pairs", "is_label", "why_no_volume"]


class Pair(NamedTuple):
    """One case: an image, and its label map if there is one."""

    case: str
    image: Path
    labels: Path | None = None
    organs: LabelMap | OrganNames | None = None
    """What the label map annotates, where a list says it."""
    patient: str = ""
    """Whose scan it is, where a list says so."""


def find_pairs(
    images: Path | str,
    labels: Path | str | None = None,
    *,
    allow_unlabelled: bool = False,
    spare_labels: bool = False,
    or_else: str = "",
    passed_over: Callable[[Path], bool] = lambda image: False,
) -> list[Pair]:
    """Images and label maps matched by name, sorted by case; both may be a folder or one file, or `images` a CSV list.

    An image and its label map have the same name, or names that differ only in words that tell the role, such as
    `image`, `volume`, `img` and `label`, `segmentation`, `mask`, `ROI`, in the modality, or in nnU-Net's `_0000`. The case
    is what they have in common, without the ending. Files that begin with a dot are skipped. Images and labels may share a
    folder, if the labels are named as labels.
    With `spare_labels` label maps without an image are left out; images that are `passed_over` are not looked at.
    DataError for an empty folder, for two files of one case, and for a file without its counterpart; with
    `allow_unlabelled` an image may go without labels, and `or_else` is what else to do, for the end of that sentence.
    """
    images, labels = Path(images), None if labels is None else Path(labels)
    if images.suffix.lower() in LISTS:
        if labels is not None:
            raise DataError(f"{images} names the label maps itself, in its column 'labels': leave --labels out.")
        return sorted(map(_of_line, read_pairs(images, allow_unlabelled)), key=lambda pair: (pair.case, pair.image))
    shared = labels is not None and labels.is_dir() and images.resolve() == labels.resolve()
    image_files = _some(images, "image", [f for f in _files(images) if not (shared and is_label(f) or passed_over(f))])
    if labels is None:
        return _alone(image_files)
    label_files = _some(labels, "label map", [f for f in _files(labels) if not (shared and not is_label(f))])
    if images.is_file() and labels.is_file():
        return [Pair(case_name(images), images, labels)]
    pairs, bare, spare = _matched(image_files, label_files)
    if spare and not (images.is_file() or spare_labels):
        raise DataError(
            f"no image in {images} goes with {few([path.name for path in spare])}: name both alike, or remove the label map."
        )
    if bare and not allow_unlabelled:
        raise DataError(
            f"no label map in {labels} goes with {few([path.name for path in bare])}: name both alike, as in case1.nii.gz and "
            f"case1_labels.nii.gz{or_else}."
        )
    return sorted([*pairs, *_alone(bare)])


def why_no_volume(folder: Path) -> str:
    """What a folder holds in place of NIfTI files, in a few words; OSError if it cannot be listed."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not inside:
        return "it is empty"
    if inner := [path.name for path in inside if path.is_dir()]:
        return f"it holds folders ({few(inner)}): put the files into it directly, named by case"
    endings = Counter("".join(path.suffixes[-2:]) or path.name for path in inside)
    return f"it holds {' and '.join([*endings][:3])}: convert them to .nii.gz"


def _of_line(line: PairLine) -> Pair:
    return Pair(line.case or case_name(line.image), line.image, line.labels, line.organs, line.patient)


def _matched(images: Sequence[Path], labels: Sequence[Path]) -> tuple[list[Pair], list[Path], list[Path]]:
    """Pairs, images without labels, and labels without an image: by whole names, then by what roles leave of them."""
    images, labels, pairs = list(images), list(labels), list[Pair]()
    for level in range(3):
        of_images, of_labels = _grouped(images, level), _grouped(labels, level)
        for form in of_images.keys() & of_labels.keys():
            if len(of_images[form]) == len(of_labels[form]) == 1:
                ((image,), (label_map,)) = of_images[form], of_labels[form]
                pairs.append(Pair((form if level == 1 else case_name(image)) or stem(image), image, label_map))
                images.remove(image)
                labels.remove(label_map)
            elif level < 2:
                _refuse_two("image", form, of_images[form])
                _refuse_two("label map", form, of_labels[form])
    times = Counter(pair.case for pair in pairs)
    return [pair._replace(case=stem(pair.image)) if times[pair.case] > 1 else pair for pair in pairs], images, labels


def _grouped(files: Sequence[Path], level: int) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        groups[forms(path)[level]].append(path)
    return groups


def _alone(images: Sequence[Path]) -> list[Pair]:
    """One case per image."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        groups[case_name(path)].append(path)
    for case, files in groups.items():
        _refuse_two("image", case, files)
    return [Pair(case, files[0]) for case, files in sorted(groups.items())]


def _refuse_two(kind: str, case: str, files: Sequence[Path]) -> None:
    if len(files) > 1:
        raise DataError(
            f"{files[0].name} and {files[1].name} are both the {kind} of case '{case}': rename or move one; "
            "if one is a label map, name the labels too."
        )


def _some(place: Path, kind: str, files: list[Path]) -> list[Path]:
    if not files:
        raise DataError(
            f"{place} holds no {kind}: images and labels in one folder are told apart by a name like case1_labels."
        )
    return files


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"{place} does not exist: check the spelling of the path.")
    try:
        found = sorted(path for path in place.iterdir() if ENDING.search(path.name) and not path.name.startswith("."))
        why = "" if found else why_no_volume(place)
    except OSError as error:
        raise DataError(f"{place} cannot be listed ({error.strerror or error}): check who may read it.") from error
    if not found:
        raise DataError(
            f"{place} holds no .nii or .nii.gz file, {why}. Name the folder that the volumes lie in directly."
        )
    return found
