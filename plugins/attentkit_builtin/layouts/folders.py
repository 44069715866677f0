"""What the layouts share: listing a folder without surprises, names that stay inside it, and small JSON files."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attent_kit.errors import ConfigError, DataError, did_you_mean, few
from attent_kit.layouts import (
    Entry,
    Layout,
    Pair,
    Scan,
    find_pairs,
    json_in,
    natural,
    read_labels,
    read_volume,
    text_of,
)

NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_CHANNEL_0 = re.compile(r"_0000$")
WIDEST = 200
"""Most folders of one level in which a data set is still looked for; more of them are its cases."""

_MODALITIES = {"ct": "ct"} | dict.fromkeys(
    ["mr", "mri", "t1", "t1w", "t1gd", "t1ce", "t2", "t2w", "flair", "adc", "dwi"], "mr"
)


def files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Files of a folder whose name holds `pattern`, in natural order; none if there is no such folder.

    A name that begins with a dot is never data: macOS leaves a `._x.nii.gz` beside every x.nii.gz. DataError for a link
    to nowhere and for a folder that is named like a file, which would be left out silently otherwise.
    """
    found = [
        path for path in _visible(folder) if pattern.search(path.name) and (path.suffix or not os.path.isdir(path))
    ]
    for path in found:
        if not os.path.isfile(path):
            what = "is a link to nothing" if path.is_symlink() else "is not a file"
            raise DataError(f"{path} {what}: put the file there, or remove it.")
    return sorted(found, key=_in_order)


def names(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Names in a folder that hold `pattern`, sorted, unchecked: enough to recognise a layout by."""
    try:
        return sorted(path.name for path in _visible(folder) if pattern.search(path.name))
    except DataError:
        return []


def folders(folder: Path) -> list[Path]:
    """Folders inside a folder, in natural order, without hidden ones and what macOS adds to a zip file."""
    try:
        with os.scandir(folder) as inside:
            found = [folder / one.name for one in inside if one.name[0] != "." and one.is_dir()]
    except (OSError, ValueError):
        return []
    return sorted((path for path in found if path.name != "__MACOSX"), key=_in_order)


def cases(folder: Path) -> list[Path]:
    """Folders inside a folder, each of them a case. DataError for a link to nowhere, which would be left out silently."""
    for path in _visible(folder):
        if not os.path.exists(path) and path.is_symlink():
            raise DataError(f"{path} is a link to nothing: put the case there, or remove it.")
    return folders(folder)


def nearest(place: Path, wanted: Callable[[Path], bool], depth: int) -> list[Path]:
    """`place` if it is wanted, or else every wanted folder of the first level below that has one, to `depth` levels."""
    level = [place]
    for _ in range(depth + 1):
        if found := [path for path in level if wanted(path)]:
            return found
        level = [inner for path in level for inner in folders(path)]
        if len(level) > WIDEST:
            break
    return []


def below(place: Path, wanted: Callable[[Path], bool], depth: int) -> Iterator[Path]:
    """`place` and every folder down to `depth` levels below it that is wanted, one level after another; none inside of those.

    A level of more than WIDEST folders is looked at only if something has been found above it.
    """
    level, found = [place], False
    for _ in range(depth + 1):
        inner: list[Path] = []
        for path in level:
            if wanted(path):
                found = True
                yield path
            else:
                inner += folders(path)
        level = inner
        if len(level) > WIDEST and not found:
            return


def only(found: Sequence[Path], place: Path, expected: str) -> Path:
    """The one folder that was found. DataError that says what was expected if there is none or there are several."""
    if not found:
        state = "holds no" if os.path.exists(place) else "does not exist; it should hold"
        raise DataError(f"{place} {state} {expected}: name the folder that does.")
    if len({os.path.realpath(path) for path in found}) > 1:
        names = " and ".join(str(path) for path in found[:3])
        raise DataError(f"{place} holds several data sets, {names}: name one of them.")
    return found[0]


def chosen(part: str | None, names: Sequence[str], place: Path, default: str | None = None) -> str:
    """The part that is meant, whatever its capitals. ConfigError that lists them if it is not there or not said."""
    if part is None:
        if default is None and len(names) > 1:
            raise ConfigError(f"{place} holds several data sets: choose one with --part, of {', '.join(names)}.")
        return default or (names[0] if names else "")
    for name in names:
        if name.lower() == part.lower():
            return name
    there = f"It has: {', '.join(names)}." if names else "It has none: leave --part out."
    raise ConfigError(f"{place} has no part '{part}'.{did_you_mean(part, names)} {there}")


def checked(entries: Iterable[Entry], place: Path) -> list[Entry]:
    """Entries sorted by id. DataError if there is none, for an id twice, and for one that cannot be printed."""
    ordered = sorted(entries, key=lambda entry: entry.id)
    if not ordered:
        raise DataError(f"{place} holds no case: name the folder that the data set was unpacked to.")
    for entry, following in zip(ordered, [*ordered[1:], None], strict=True):
        if not entry.id.isprintable() or entry.id.strip() in ("", ".", ".."):
            raise DataError(f"{place}: {entry.id!r} cannot name a case: rename its files to letters and digits.")
        if following is not None and following.id == entry.id:
            one, other = ((e.images or e.labels)[0] for e in (entry, following))
            raise DataError(f"{one} and {other} are both case '{entry.id}': rename or remove one.")
    return ordered


def paired(
    layout: Layout, images: Path, labels: Path | None, allow_unlabelled: bool = False, or_else: str = ""
) -> list[Pair]:
    """`find_pairs` for the entries of a layout, which refuses a file without its counterpart."""
    try:
        return find_pairs(images, labels, allow_unlabelled=allow_unlabelled, or_else=or_else)
    except DataError as error:
        try:
            pairs = find_pairs(images, labels, allow_unlabelled=True, spare_labels=True)
        except DataError:
            pairs = find_pairs(images, allow_unlabelled=True)  # which refuses again if the images are to blame
        layout.refuse(error)
        return pairs


def by_case(folder: Path) -> dict[str, Path]:
    """The NIfTI files of a folder by their names without the ending, and without the `_0000` of nnU-Net's first channel."""
    found: dict[str, Path] = {}
    for path in files(folder, NIFTI):
        if (other := found.setdefault(_CHANNEL_0.sub("", NIFTI.sub("", path.name)), path)) != path:
            raise DataError(f"{other} and {path} are one case: remove one of them.")
    return found


def labelled(layout: Layout, images: dict[str, Path], labels: dict[str, Path], place: Path) -> dict[str, Path]:
    """The label map of each image; those that one lacks are refused by name, as is a label map without its image."""
    if lonely := sorted(set(images) - set(labels)):
        layout.refuse(DataError(f"{place} has no label map of {listing(lonely)}: add it, or remove the image."))
    if lonely := sorted(set(labels) - set(images)):
        layout.refuse(DataError(f"{place} has a label map without its image, {listing(lonely)}: add the image."))
    return {case: path for case, path in labels.items() if case in images}


def scan_of(entry: Entry, doubts: tuple[str, ...] = ()) -> Scan:
    """The NIfTI file that a case is, with its one label map, if it has one, on the same grid."""
    image = read_volume(entry.images[0])
    return Scan(image, read_labels(entry.labels[0], like=image) if entry.labels else None, doubts=doubts)


def inside(root: Path, name: object, source: Path) -> Path:
    """The file that a file of the data set names. DataError for one that leads out of `root` or is not there."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{source} names {shown(name)} where a file name belongs: correct it.")
    if Path(name).is_absolute() or Path(name).drive or ".." in Path(name).parts:
        raise DataError(f"{source} names '{name}', which leads out of {root}: copy the file there and name it plainly.")
    path = root / name
    if not os.path.isfile(path):
        raise DataError(f"{source} names '{name}', which is not there: download it again, or take it off the list.")
    return path


def json_file(path: Path, kind: type) -> Any:
    """What a JSON file holds, an object (`dict`) or a list. DataError for anything else, and for a key that occurs twice."""
    try:
        content = json_in(text_of(path), pairs=lambda p: _unique(p, path))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: it says what the labels mean; download it again.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({_reason(error)}): correct it or download it again.") from None
    if not isinstance(content, kind):
        wanted = "an object in braces" if kind is dict else "a list in brackets"
        raise DataError(f"{path} must hold {wanted}: correct it or download it again.")
    return content


def modality_of(name: str) -> str | None:
    """ct or mr if a word of the name says so: 'T2-SPIR' and 'MRI' are mr, 'ct_test_1001' is ct."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z]{2})[0-9]+", r"\1", name.lower()))
    found = {_MODALITIES[word] for word in words if word in _MODALITIES}
    return found.pop() if len(found) == 1 else None


def shown(value: object) -> str:
    """A value of a JSON file in a few words."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value)[:60]


def listing(names: Sequence[str]) -> str:
    """The first names of many: 'a, b, c and 4 more'."""
    return few(names, 3)


def _in_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    return natural(path.name), path.name


def _visible(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return []
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}): check who may read it.") from None


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise DataError(f"{path} names {key[:60]!r} twice: name it once.")
        content[key] = value
    return content


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error)).partition("\n")[0][:120]
